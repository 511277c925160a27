"""Every constraint of the model, violated once: the status, the error's name and AWS's words. Thousands of requests, none of which reaches an operation."""
import pytest

from support import model

from conformance import oracle, samples, violations

CASES = [case for operation in model.operations() for case in violations.cases(operation)]


def expected(operation, members):
    return oracle.sentences(model.operations()[operation].input_shape, members)


def assert_refused(answer, sentences):
    assert (answer.status, answer.error) == (400, oracle.ERROR), answer
    assert oracle.is_message(answer.message, sentences), f"{answer.message}\nis not\n{sentences}"
    assert violations.SECRET not in answer.body.decode()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_constraint(caller, case):
    answer = caller.call(case.operation, case.members)
    if case.mistyped:
        assert (answer.status, answer.error, answer.message) == (400, "SerializationException", case.mistyped), answer
        return
    sentences = expected(case.operation, case.members)
    assert sentences, "the case violates nothing"
    assert_refused(answer, sentences)


def one_violation_of_each(operation):
    """A request in which every member that can be wrong is."""
    found = {}
    for case in violations.cases(operation):
        top = case.member
        if case.mistyped is None and case.constraint != "required" and top in case.members and top not in found:
            if expected(operation, samples.request(operation) | {top: case.members[top]}):
                found[top] = case.members[top]
    return samples.request(operation) | found


@pytest.mark.parametrize("operation", model.operations())
def test_all_violations_come_in_one_message(caller, operation):
    members = one_violation_of_each(operation)
    sentences = expected(operation, members)
    constrained = {case.member for case in CASES if case.operation == operation and case.mistyped is None}
    assert len(sentences) >= len(constrained), "each member that can be wrong is"
    assert_refused(caller.call(operation, members), sentences)


@pytest.mark.parametrize("operation", model.operations())
def test_unknown_members_are_ignored(caller, operation):
    """The answer is what it is without them."""
    least = samples.request(operation)
    first, [top, *_] = one_violation_of_each(operation), [*model.operations()[operation].input_shape.members]
    wrong = least | {top: first[top]}
    answer = caller.call(operation, wrong | {"noSuchMember": {"deep": [1, "two"]}})
    assert_refused(answer, expected(operation, wrong))


BODIES = [(b"[]", "Start of structure or map not found where expected."), (b'"text"', "Start of structure or map not found where expected."),
          (b"{", "The request body is not valid JSON."), (b"\xff\xfe", "The request body is not valid JSON."),
          (b'{"a": ' * 200, "The request body is not valid JSON.")]
WITH_BODY = [name for name, operation in model.operations().items() if any(model.location(m) == "body" for m in operation.input_shape.members.values())]


@pytest.mark.parametrize("operation", WITH_BODY)
@pytest.mark.parametrize("body, words", BODIES, ids=["list", "text", "cut off", "not UTF-8", "deep"])
def test_bodies_that_are_no_structure(caller, operation, body, words):
    answer = caller.call(operation, samples.request(operation), body=body)
    assert (answer.status, answer.error, answer.message) == (400, "SerializationException", words)


@pytest.mark.parametrize("operation", WITH_BODY)
def test_a_body_that_is_too_large(caller, operation):
    answer = caller.call(operation, samples.request(operation), body=b" " * (6 * 1024 * 1024 + 1))
    assert (answer.status, answer.error) == (413, "RequestTooLargeException")


WITH_LABELS = [name for name, operation in model.operations().items() if "{" in operation.http["requestUri"]]


@pytest.mark.parametrize("operation", WITH_LABELS)
def test_an_empty_label_reaches_no_operation(caller, operation):
    """A path has no empty label, so `min` and `required` cannot be violated there: the request is another one, or nobody's."""
    shape = model.operations()[operation]
    paths = {other.http["requestUri"] for other in model.operations().values() if other.http["method"] == shape.http["method"]}
    members = samples.request(operation)
    labels = [name for name, member in shape.input_shape.members.items() if model.location(member) == "uri"]
    for label in labels:
        empty = shape.http["requestUri"].replace("{%s}" % label, "")
        if empty.rstrip("/") in paths:
            continue  # Of its parent: a trailing slash is forgiven.
        answer = caller.send_to(operation, members | {label: ""})
        assert answer.status in (400, 404), answer
