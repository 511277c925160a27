"""Every answer a test's client gets is held against the service's own model: members, types, required ones, errors and their statuses."""
import json
import re

CHECKED_SERVICES = {"lambda-microvms", "lambda-core"}
CHECKED = set()  # operations whose answers were checked
SIMPLE = {"string": str, "boolean": bool, "integer": int, "long": int, "double": (int, float), "float": (int, float), "timestamp": (int, float)}


class ShapeError(AssertionError):
    """An answer is not of the shape the service's model promises."""


def watch(client):
    service = client.meta.service_model.service_name
    if service in CHECKED_SERVICES:
        client.meta.events.register(f"after-call.{client.meta.service_model.service_id.hyphenize()}", check)


def check(http_response, parsed, model, **_):
    body = http_response.content
    answer = json.loads(body) if body else {}
    problems = list(problems_of_error(model, http_response, answer) if http_response.status_code >= 300 else problems_of_answer(model, http_response, answer))
    if problems:
        raise ShapeError(f"{model.name}: " + "; ".join(problems) + f"\n{body[:2000]!r}")
    CHECKED.add(model.name)


def problems_of_answer(model, response, answer):
    expected = model.http.get("responseCode", 200)
    if response.status_code != expected:
        yield f"status {response.status_code} instead of {expected}"
    if "x-amzn-requestid" not in response.headers:
        yield "no x-amzn-requestid"
    if model.output_shape:
        yield from problems_of(model.output_shape, answer, "answer")


# Of no operation's own list: the front of every AWS service answers them.
COMMON = {"InvalidSignatureException": 403, "UnrecognizedClientException": 403, "MissingAuthenticationTokenException": 403, "SerializationException": 400}


def problems_of_error(model, response, answer):
    name = response.headers.get("x-amzn-errortype", "").split(":")[0]
    shapes = {shape.name: shape for shape in model.error_shapes}
    if name in COMMON:
        if response.status_code != COMMON[name]:
            yield f"{name} with status {response.status_code}"
    elif name not in shapes:
        yield f"{name or 'an error without x-amzn-errortype'} (status {response.status_code}) is not an error of this operation"
    else:
        status = shapes[name].metadata.get("error", {}).get("httpStatusCode")
        if status and status != response.status_code:
            yield f"{name} with status {response.status_code} instead of {status}"
        unknown = {member.lower() for member in answer} - {member.lower() for member in shapes[name].members} - {"message", "type"}
        if unknown:
            yield f"{name} has unknown members {sorted(unknown)}"
    if not (answer.get("message") or answer.get("Message")):
        yield "no message"


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


def problems_of_simple(shape, value, where):
    expected = SIMPLE.get(shape.type_name, object)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        yield f"{where} is {type(value).__name__} instead of {shape.type_name}"
    elif isinstance(value, str):
        if getattr(shape, "enum", None) and value not in shape.enum:
            yield f"{where} is {value!r}, not one of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        # AWS's own reasons have spaces and are of a shape whose pattern, taken whole, forbids them.
        matches = re.search if shape.name == "NonBlankString" else re.fullmatch
        if pattern and r"\p" not in pattern and not matches(pattern, value):
            yield f"{where} is {value!r}, which is not {pattern}"
        if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
            yield f"{where} is {len(value)} characters long"
