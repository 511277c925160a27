"""Every way to violate the model once, made from it: for each operation and member, the request and what is wrong with it."""
import dataclasses
import re

import regex

from support import model

from conformance import oracle, samples

# In every value of a sensitive member, so that it can be looked for where it must not be.
SECRET = "sEcReT"
JSON = {"string": "text", "integer": 7, "fraction": 1.5, "huge": 1 << 40, "true": True, "array": [], "object": {}}
FITS = {"string": {"string"}, "integer": {"integer"}, "long": {"integer", "huge"}, "boolean": {"true"}, "double": {"integer", "fraction", "huge"},
        "float": {"integer", "fraction", "huge"}, "timestamp": {"integer", "fraction", "huge"}, "list": {"array"}, "map": {"object"}, "structure": {"object"}}
UNFIT_TEXTS = ("no such thing!", " ", "a b", "*", "a:b", ";", "\u0000", "?", "")


@dataclasses.dataclass(frozen=True)
class Case:
    operation: str
    where: str  # `allowedPorts[].range.startPort`, `tags{key}`
    constraint: str
    members: dict
    # Of a value of the wrong JSON type.
    mistyped: str | None = None

    @property
    def key(self):
        return (self.operation, self.where, self.constraint)

    @property
    def member(self):
        """The member of the request it is about."""
        return re.split(r"[.\[{]", self.where)[0]

    def __str__(self):
        return "-".join(self.key)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in a request a value stands. `put` makes the request that has another value there."""
    operation: str
    where: str
    location: str
    put: object

    def case(self, constraint, value, **more):
        return Case(self.operation, self.where, constraint, self.put(value), **more)

    def inner(self, suffix, wrap):
        return Place(self.operation, self.where + suffix, self.location, lambda value: self.put(wrap(value)))


def cases(operation):
    shape = model.operations()[operation].input_shape
    if shape is None:
        return
    least = samples.request(operation)
    for name, member in shape.members.items():
        place = Place(operation, name, model.location(member), lambda value, name=name: least | {name: value})
        if name in shape.required_members and place.location != "uri":
            yield Case(operation, name, "required", {other: value for other, value in least.items() if other != name})
        yield from cases_of(member, place)


def cases_of(shape, place):
    yield from mistyped(shape, place)
    kind = shape.type_name
    if kind == "structure":
        yield from structure(shape, place)
    elif kind == "list":
        yield from sizes(shape, place, lambda size: [samples.sample(shape.member)] * size)
        if place.location == "body":
            yield place.case("null", [None])
        yield from cases_of(shape.member, place.inner("[]", lambda value: [value]))
    elif kind == "map":
        yield from sizes(shape, place, lambda size: {f"k{index}": secret_or(shape.value, "v") for index in range(size)})
        yield place.case("null", {samples.sample(shape.key): None})
        key, value = samples.sample(shape.key), secret_or(shape.value, samples.sample(shape.value))
        # JSON has no name that is no text.
        yield from text(shape.key, place.inner("{key}", lambda name: {name: value}))
        yield from cases_of(shape.value, place.inner("{value}", lambda item: {key: item}))
    elif kind == "string":
        yield from text(shape, place)
    elif kind in ("integer", "long"):
        yield from number(shape, place)


def structure(shape, place):
    least = samples.least(shape)
    union = getattr(shape, "is_tagged_union", False)
    if union:
        yield place.case("none of a union", {})
        if len(shape.members) > 1:
            yield place.case("two of a union", {name: samples.sample(member) for name, member in list(shape.members.items())[:2]})
    for name, member in shape.members.items():
        rest = {} if union else least
        inner = place.inner(f".{name}", lambda value, name=name, rest=rest: rest | {name: value})
        if name in shape.required_members:
            yield dataclasses.replace(place.case("required", {other: value for other, value in least.items() if other != name}), where=inner.where)
        yield from cases_of(member, inner)


def sizes(shape, place, of_size):
    limits = shape.metadata
    if limits.get("min", 0) > 0:
        yield place.case("min", of_size(limits["min"] - 1))
    if "max" in limits:
        yield place.case("max", of_size(limits["max"] + 1))


def text(shape, place):
    limits = shape.metadata
    good = samples.sample(shape)
    expressible = place.location != "uri"
    if limits.get("min", 0) > 1 or (limits.get("min") == 1 and expressible):
        yield place.case("min", good[:limits["min"] - 1])
    if "max" in limits:
        yield place.case("max", secret_or(shape, good) + "x" * (limits["max"] + 1 - len(secret_or(shape, good))))
    if "pattern" in limits:
        yield place.case("pattern", unfit(limits))
    if getattr(shape, "enum", None):
        yield place.case("enum", "NO_SUCH_WORD")


def unfit(limits):
    """A text of an allowed length that the pattern does not take; if there is none, one that it does not take."""
    wrong = [text for text in UNFIT_TEXTS if not regex.fullmatch(limits["pattern"], text)]
    padded = wrong + [text * limits.get("min", 1) for text in wrong]
    return next((text for text in padded if limits.get("min", 0) <= len(text) <= limits.get("max", len(text))), wrong[0])


def number(shape, place):
    if "max" in shape.metadata:
        yield place.case("max", shape.metadata["max"] + 1)
    if "min" in shape.metadata:
        yield place.case("min", shape.metadata["min"] - 1)


def mistyped(shape, place):
    if place.location == "body":
        for kind in JSON.keys() - FITS[shape.type_name]:
            yield place.case(f"type: {kind}", JSON[kind], mistyped=oracle.mistyped(shape, kind))
    elif shape.type_name in ("integer", "long"):
        yield place.case("type: string", "many", mistyped=oracle.mistyped(shape, "string"))


def secret_or(shape, value):
    return SECRET if oracle.sensitive(shape) else value
