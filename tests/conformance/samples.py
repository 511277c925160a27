"""Values that are right by the model: the least an operation takes, and one value of every shape.

They name nothing that exists: constraints are judged before anything is looked up.
"""
from support import model

from conformance import oracle

IMAGE = "arn:aws:lambda:us-east-1:123456789012:microvm-image:none"
# What a pattern wants and no rule could make up, by the name of the shape.
BY_SHAPE = {
    "RoleArn": "arn:aws:iam::123456789012:role/none",
    "NetworkConnectorRoleArn": "arn:aws:iam::123456789012:role/none",
    "TaggableResource": IMAGE,
    "MicrovmImageIdentifier": IMAGE,
    "MicrovmIdentifier": "microvm-00000000-0000-4000-8000-000000000000",
    "NetworkConnectorSubnetId": "subnet-0123456789abcdef0",
    "NetworkConnectorSecurityGroupId": "sg-0123456789abcdef0",
    "Version": "1.0",
}


def least(shape):
    """The required members alone; of a union its first member."""
    if getattr(shape, "is_tagged_union", False):
        name = next(iter(shape.members))
        return {name: sample(shape.members[name])}
    return {name: sample(shape.members[name]) for name in shape.required_members}


def sample(shape):
    value = make(shape)
    assert not oracle.sentences(shape, value), (shape.name, value)
    return value


def make(shape):
    kind, limits = shape.type_name, shape.metadata
    if kind == "structure":
        return least(shape)
    if kind == "list":
        return [sample(shape.member)] * max(limits.get("min", 0), 1)
    if kind == "map":
        return {sample(shape.key): sample(shape.value)}
    if kind == "string":
        return BY_SHAPE.get(shape.name) or (shape.enum[0] if getattr(shape, "enum", None) else "x" * max(limits.get("min", 0), 1))
    if kind in ("integer", "long"):
        return max(limits.get("min", 1), 1)
    return {"boolean": True, "double": 1.5, "float": 1.5, "timestamp": 1_800_000_000}[kind]


def request(operation):
    shape = model.operations()[operation].input_shape
    return least(shape) if shape else {}
