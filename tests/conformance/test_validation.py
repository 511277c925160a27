"""Constraints: for each one of the model's that a request can break, the request that breaks it and AWS's words for it.

The cases are made from botocore's model when the tests run, for the operations with a body; nothing here repeats a limit.
"""
import re

import pytest
from botocore.exceptions import ClientError
from botocore.session import get_session

SERVICE = get_session().get_service_model("lambda-microvms")
OPERATIONS = ("CreateMicrovmImage", "RunMicrovm", "CreateMicrovmAuthToken", "UpdateMicrovmImage", "ListMicrovms", "ListMicrovmImages")
IMAGE = "arn:aws:lambda:us-east-1:123456789012:microvm-image:none"
MICROVM = "microvm-00000000-0000-4000-8000-000000000000"
GOOD = {
    "CreateMicrovmImage": {"name": "n", "baseImageArn": "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1", "codeArtifact": {"uri": "s3://b/k"},
                           "buildRoleArn": "arn:aws:iam::123456789012:role/r"},
    "RunMicrovm": {"imageIdentifier": IMAGE},
    "CreateMicrovmAuthToken": {"microvmIdentifier": MICROVM, "expirationInMinutes": 1, "allowedPorts": [{"port": 80}]},
    "ListMicrovms": {}, "ListMicrovmImages": {},
}
GOOD["UpdateMicrovmImage"] = {"imageIdentifier": IMAGE} | {name: value for name, value in GOOD["CreateMicrovmImage"].items() if name != "name"}
# A URL cannot say these: an empty path segment is another path, and long ones fill the request's line.
OF_THE_PATH = {"uri"}


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def breaking(shape):
    """(value, words) for each constraint of a simple shape, list or map."""
    limits, kind = shape.metadata, shape.type_name
    if kind == "string":
        if getattr(shape, "enum", None):
            yield "NO_SUCH_WORD", f"satisfy enum value set: [{', '.join(shape.enum)}]"
        # A value that breaks the length alone.
        if "max" in limits and limits["max"] <= 4096 and "pattern" not in limits:
            yield "x" * (limits["max"] + 1), f"have length less than or equal to {limits['max']}"
        if "pattern" in limits and not re.fullmatch(limits["pattern"], "no such thing!"):
            yield "no such thing!", f"satisfy regular expression pattern: {limits['pattern']}"
    elif kind in ("integer", "long"):
        if "max" in limits:
            yield limits["max"] + 1, f"have value less than or equal to {limits['max']}"
        if "min" in limits:
            yield limits["min"] - 1, f"have value greater than or equal to {limits['min']}"
    elif kind == "list" and limits.get("min", 0) > 0:
        yield [], f"have length greater than or equal to {limits['min']}"
    elif kind == "map" and limits.get("max", 10**6) <= 100:
        yield {f"k{n}": "v" for n in range(limits["max"] + 1)}, f"have length less than or equal to {limits['max']}"


def cases():
    for operation in OPERATIONS:
        shape = SERVICE.operation_model(operation).input_shape
        for name, member in shape.members.items():
            if member.serialization.get("location") in OF_THE_PATH:
                continue
            for value, words in breaking(member):
                yield pytest.param(operation, {name: value}, name, words, id=f"{operation}-{name}-{words.split(':')[0].replace(' ', '_')}")
            if member.type_name == "structure" and not member.metadata.get("union"):
                for inner, inner_member in member.members.items():
                    for value, words in breaking(inner_member):
                        others = {other: 1 for other in member.required_members if other != inner and member.members[other].type_name == "integer"}
                        yield pytest.param(operation, {name: others | {inner: value}}, f"{name}.{inner}", words,
                                           id=f"{operation}-{name}.{inner}-{words.split(':')[0].replace(' ', '_')}")


def refusal(daemon, operation, members):
    with pytest.raises(ClientError) as error:
        getattr(daemon.microvms, snake(operation))(**members)
    response = error.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationException", 400)
    return response["Error"]["Message"]


ALL = list(cases())


def test_the_model_gives_cases():
    assert len(ALL) > 20


@pytest.mark.parametrize("operation, members, where, words", ALL)
def test_constraint(daemon, operation, members, where, words):
    message = refusal(daemon, operation, GOOD[operation] | members)
    assert re.match(r"\d+ validation errors? detected: ", message), message
    assert f"at '{where}' failed to satisfy constraint: Member must {words}" in message


@pytest.mark.parametrize("operation", ["CreateMicrovmImage", "RunMicrovm", "CreateMicrovmAuthToken"])
def test_required_members(daemon, operation):
    shape = SERVICE.operation_model(operation).input_shape
    for name in shape.required_members:
        if shape.members[name].serialization.get("location") in OF_THE_PATH:
            continue
        members = {other: value for other, value in GOOD[operation].items() if other != name}
        assert f"at '{name}' failed to satisfy constraint: Member must not be null" in refusal(daemon, operation, members)


def test_sensitive_values_are_not_repeated(daemon):
    message = refusal(daemon, "RunMicrovm", GOOD["RunMicrovm"] | {"runHookPayload": "secret" * 1000})
    assert "Member must have length less than or equal to 4096" in message
    assert "secret" not in message


def test_two_errors_are_both_told(daemon):
    message = refusal(daemon, "RunMicrovm", GOOD["RunMicrovm"] | {"maximumDurationInSeconds": 0, "clientToken": "x" * 129})
    assert message.startswith("2 validation errors detected: ")
    assert "maximumDurationInSeconds" in message and "clientToken" in message
