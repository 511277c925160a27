"""Every answer a test's client gets is held against the service's own model: members, types, required ones, errors and their statuses."""
import json
import re

import regex

CHECKED_SERVICES = {"lambda-microvms", "lambda-core"}
CHECKED = set()  # operations whose answers were checked
ANSWERED = []  # operations in the order of their successful answers
REFUSED = []  # (operation, error) in the order of the refusals
SIMPLE = {"string": str, "boolean": bool, "integer": int, "long": int, "double": (int, float), "float": (int, float)}
ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")
# Of an answer's times: after the service's model was made, before an answer in milliseconds would be mistaken for one in seconds.
PLAUSIBLE_SECONDS = range(1_577_836_800, 7_258_118_400)


class ShapeError(AssertionError):
    """An answer is not of the shape the service's model promises."""


def watch(client):
    service = client.meta.service_model.service_name
    if service in CHECKED_SERVICES:
        client.meta.events.register(f"after-call.{client.meta.service_model.service_id.hyphenize()}", check)


def check(http_response, parsed, model, **_):
    hold(model, http_response.status_code, http_response.headers, http_response.content)


def hold(model, status, headers, body):
    """Holds an answer against its operation's model and records it."""
    answer = json.loads(body) if body else {}
    problems = list(problems_of_error(model, status, headers, answer) if status >= 300 else problems_of_answer(model, status, headers, answer))
    if problems:
        raise ShapeError(f"{model.name}: " + "; ".join(problems) + f"\n{body[:2000]!r}")
    CHECKED.add(model.name)
    if status >= 300:
        REFUSED.append((model.name, error_name(headers)))
    else:
        ANSWERED.append(model.name)


def error_name(headers):
    return headers.get("x-amzn-errortype", "").split(":")[0]


def problems_of_answer(model, status, headers, answer):
    expected = model.http.get("responseCode", 200)
    if status != expected:
        yield f"status {status} instead of {expected}"
    if "x-amzn-requestid" not in headers:
        yield "no x-amzn-requestid"
    if model.output_shape:
        yield from problems_of(model.output_shape, answer, "answer")


# Of no operation's own list: the front of every AWS service answers them.
COMMON = {"InvalidSignatureException": 403, "UnrecognizedClientException": 403, "MissingAuthenticationTokenException": 403, "ExpiredTokenException": 403,
          "IncompleteSignatureException": 400, "AccessDeniedException": 403, "SerializationException": 400, "ValidationException": 400}


def problems_of_error(model, status, headers, answer):
    name = error_name(headers)
    shapes = {shape.name: shape for shape in model.error_shapes}
    if "x-amzn-requestid" not in headers:
        yield "no x-amzn-requestid"
    if name in COMMON and name not in shapes:
        if status != COMMON[name]:
            yield f"{name} with status {status}"
    elif name not in shapes:
        yield f"{name or 'an error without x-amzn-errortype'} (status {status}) is not an error of this operation"
    else:
        declared = shapes[name].metadata.get("error", {}).get("httpStatusCode")
        if declared and declared != status:
            yield f"{name} with status {status} instead of {declared}"
        yield from problems_of_error_members(shapes[name], headers, answer)
    if not (answer.get("message") or answer.get("Message")):
        yield "no message"


def problems_of_error_members(shape, headers, answer):
    """What is not known is null on AWS's wire; the front adds `message` beside a declared `Message`, and `__type` for clients of other protocols."""
    added = {"__type"} | ({"message"} if "Message" in shape.members else set())
    yield from (f"{shape.name} lacks {name}" for name in shape.members if name.lower() == "message" and not answer.get(name))
    yield from problems_of(shape, {name: value for name, value in answer.items() if name not in added}, shape.name)
    in_header = {member.serialization["name"]: name for name, member in shape.members.items() if member.serialization.get("location") == "header"}
    for header, name in in_header.items():
        value = headers.get(header)
        if shape.metadata.get("error", {}).get("httpStatusCode") == 429 and not (value and value.isdigit()):
            yield f"{shape.name} has {header}: {value}, which is no number of seconds"


def problems_of(shape, value, where):
    if shape.type_name == "structure":
        yield from problems_of_structure(shape, value, where)
    elif shape.type_name == "list":
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        yield from (problem for index, item in enumerate(value) for problem in problems_of(shape.member, item, f"{where}[{index}]"))
    elif shape.type_name == "map":
        if not isinstance(value, dict):
            yield f"{where} is no map"
            return
        yield from (problem for key, item in value.items() for problem in problems_of(shape.value, item, f"{where}[{key}]"))
    else:
        yield from problems_of_simple(shape, value, where)


def problems_of_structure(shape, value, where):
    if not isinstance(value, dict):
        yield f"{where} is no structure"
        return
    by_wire_name = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
    in_body = {name for name, (_, member) in by_wire_name.items() if member.serialization.get("location") is None}
    yield from (f"{where} has unknown member {name}" for name in value if name not in in_body)
    yield from (f"{where} lacks {name}" for name in in_body if by_wire_name[name][0] in shape.required_members and value.get(name) is None)
    for name in in_body & value.keys():
        if value[name] is not None:
            yield from problems_of(by_wire_name[name][1], value[name], f"{where}.{name}")


def problems_of_timestamp(shape, value, where):
    if shape.serialization.get("timestampFormat") == "iso8601":
        if not (isinstance(value, str) and ISO_8601.fullmatch(value)):
            yield f"{where} is {value!r}, which is no ISO 8601 timestamp"
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        yield f"{where} is {type(value).__name__} instead of epoch seconds"
    elif int(value) not in PLAUSIBLE_SECONDS:
        yield f"{where} is {value!r}, which is not now in epoch seconds"


def problems_of_simple(shape, value, where):
    if shape.type_name == "timestamp":
        yield from problems_of_timestamp(shape, value, where)
        return
    expected = SIMPLE.get(shape.type_name, object)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        yield f"{where} is {type(value).__name__} instead of {shape.type_name}"
    elif isinstance(value, str):
        if getattr(shape, "enum", None) and value not in shape.enum:
            yield f"{where} is {value!r}, not one of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        # AWS's own reasons have spaces and are of a shape whose pattern, taken whole, forbids them.
        matches = regex.search if shape.name == "NonBlankString" else regex.fullmatch
        if pattern and not matches(pattern, value):
            yield f"{where} is {value!r}, which is not {pattern}"
        if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
            yield f"{where} is {len(value)} characters long"
