"""What AWS says of a value: every constraint of the model, in the words of AWS's framework (observed).

Written from the model and from what AWS was seen to answer, not from Emberbox: the two are held against each other.
"""
import regex

# Of every service's front, whether or not an operation declares it (observed).
ERROR = "ValidationException"
# Emberbox's own limit on a repeated value.
MOST_REPEATED = 1024
SIMPLE = ("string", "integer", "long", "boolean", "timestamp", "double", "float")


def is_message(text, expected):
    """Whether a message says these sentences, all of them once and nothing else, in whatever order."""
    prefix = f"{len(expected)} validation error{'s' if len(expected) > 1 else ''} detected: "
    return text.startswith(prefix) and len(text) == len(prefix + "; ".join(expected)) and all(sentence in text for sentence in expected)


def sentences(shape, value, where=""):
    """Every violation of a value of a shape, as AWS words it."""
    if shape.type_name == "structure":
        return of_structure(shape, value, where)
    if shape.type_name == "list":
        return own(shape, value, where) + of_elements(shape, value, where)
    if shape.type_name == "map":
        return own(shape, value, where) + of_entries(shape, value, where)
    return own(shape, value, where)


def of_structure(shape, value, where):
    found = []
    known = {name: member for name, member in value.items() if member is not None and name in shape.members}
    if getattr(shape, "is_tagged_union", False) and len(known) != 1:
        found.append(f"Value at '{where}' failed to satisfy constraint: "
                     f"Member must have exactly one of the following members set: [{', '.join(map(camel_case, sorted(shape.members)))}]")
    for name, member in shape.members.items():
        inner = f"{where}.{camel_case(name)}" if where else camel_case(name)
        if name in known:
            found += sentences(member, known[name], inner)
        elif name in shape.required_members:
            found.append(null(inner))
    return found


def camel_case(name):
    """AWS's framework names members like this whatever their case on the wire (observed for Lambda Core)."""
    return name[0].lower() + name[1:]


def of_elements(shape, value, where):
    """Structures are judged one by one, simple values together."""
    found = [null(f"{where}.{index}.member") for index, item in enumerate(value, 1) if item is None]
    if shape.member.type_name not in SIMPLE:
        return found + [s for index, item in enumerate(value, 1) if item is not None for s in sentences(shape.member, item, f"{where}.{index}.member")]
    if any(violated(shape.member, item) for item in value if item is not None):
        found.append(sentence(value, sensitive(shape.member), where, f"Member must satisfy constraint: [{', '.join(constraints(shape.member))}]"))
    return found


def of_entries(shape, value, where):
    found, secret = [], sensitive(shape.key) or sensitive(shape.value)
    if any(violated(shape.key, key) for key in value):
        found.append(sentence(value, secret, where, f"Map keys must satisfy constraint: [{', '.join(constraints(shape.key))}]"))
    if any(item is None for item in value.values()):
        found.append(sentence(value, secret, where, "Map value must satisfy constraint: [Member must not be null]"))
    if any(violated(shape.value, item) for item in value.values() if item is not None):
        found.append(sentence(value, secret, where, f"Map value must satisfy constraint: [{', '.join(constraints(shape.value))}]"))
    return found


def own(shape, value, where):
    inner = [getattr(shape, name) for name in ("member", "key", "value") if shape.type_name in ("list", "map") and hasattr(shape, name)]
    secret = sensitive(shape) or any(sensitive(part) for part in inner)
    return [sentence(value, secret, where, words) for words in violated(shape, value)]


def sensitive(shape):
    return bool(shape.metadata.get("sensitive"))


def rules(shape):
    """[(words, whether a value obeys)] of each constraint a shape puts on a value itself."""
    limits, kind = shape.metadata, shape.type_name
    if kind == "string":
        found = bounds(limits, "length", len)
        if "pattern" in limits:
            pattern = limits["pattern"]
            found.append((f"Member must satisfy regular expression pattern: {pattern}", lambda text: regex.fullmatch(pattern, text)))
        if getattr(shape, "enum", None):
            found.append((f"Member must satisfy enum value set: [{', '.join(shape.enum)}]", lambda text: text in shape.enum))
        return found
    if kind in ("integer", "long"):
        return bounds(limits, "value", lambda number: number)
    return bounds(limits, "length", len) if kind in ("list", "map") else []


def bounds(limits, what, measure):
    upper, lower = limits.get("max"), limits.get("min")
    found = []
    if upper is not None:
        found.append((f"Member must have {what} less than or equal to {upper}", lambda value: measure(value) <= upper))
    if lower is not None:
        found.append((f"Member must have {what} greater than or equal to {lower}", lambda value: measure(value) >= lower))
    return found


def constraints(shape):
    return [words for words, _ in rules(shape)]


def violated(shape, value):
    return [words for words, obeys in rules(shape) if not obeys(value)]


def null(where):
    return f"Value null at '{where}' failed to satisfy constraint: Member must not be null"


def sentence(value, secret, where, words):
    repeated = "" if secret else f" '{as_java_prints(value)}'"
    return f"Value{repeated} at '{where}' failed to satisfy constraint: {words}"


def as_java_prints(value):
    text = printed(value)
    return text if len(text) <= MOST_REPEATED else text[:MOST_REPEATED] + "..."


def printed(value):
    if isinstance(value, list):
        return "[" + ", ".join(map(printed, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}={printed(item)}" for name, item in sorted(value.items())) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


# JSON of the wrong type: refused before any constraint is looked at, in the words of AWS's parsers (observed).
TOKENS = {"string": "STRING_VALUE", "integer": "NUMBER_VALUE", "fraction": "NUMBER_VALUE", "huge": "NUMBER_VALUE", "true": "TRUE_VALUE"}
JAVA = {"string": "a String", "integer": "an Integer", "long": "a Long", "boolean": "a Boolean", "double": "a Float", "float": "a Float",
        "timestamp": "a Timestamp"}


def mistyped(shape, kind):
    """The message for JSON of `kind` where a shape of another type belongs."""
    if kind == "object":
        return "Start of structure or map found where not expected."
    if kind == "array":
        return "Start of list found where not expected"
    if shape.type_name in ("structure", "map"):
        return "Unexpected field type"
    if shape.type_name == "list":
        return "Expected list or null"
    return f"{TOKENS[kind]} can not be converted to {JAVA[shape.type_name]}"
