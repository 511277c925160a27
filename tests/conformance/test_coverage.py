"""Fails when an operation, a constraint or a declared error of the models has no case.

What is to be covered is read from the models' plain JSON here, not by the code that makes the cases. What the tests cover, they say by marks
(`answers`, `provokes`), which conftest.py holds them to.
"""
import re

import pytest

from support import model

from conformance import exempt, violations
from conformance.conftest import COLLECTED

SIMPLE_LIMITS = {"string": ("min", "max"), "integer": ("min", "max"), "long": ("min", "max"), "list": ("min", "max"), "map": ("min", "max")}


class Document:
    """The constraints of one service's operations, from its JSON."""

    def __init__(self, service):
        self.operations, self.shapes = model.document(service)["operations"], model.document(service)["shapes"]

    def constraints(self, operation):
        """(where, constraint, location) of each."""
        top = self.shapes[self.operations[operation]["input"]["shape"]] if "input" in self.operations[operation] else {"members": {}}
        for name, reference in top["members"].items():
            location = reference.get("location", "body")
            if name in top.get("required", []):
                yield name, "required", location
            yield from self.of(reference["shape"], name, location)

    def of(self, name, where, location):
        shape = self.shapes[name]
        kind = shape["type"]
        if location == "body":
            yield from ((where, f"type: {json}", location) for json in violations.JSON if json not in violations.FITS[kind])
        elif location == "querystring" and kind in ("integer", "long"):
            yield where, "type: string", location
        for limit in SIMPLE_LIMITS.get(kind, ()):
            if limit in shape and not (limit == "min" and shape[limit] == 0 and kind not in ("integer", "long")):
                yield where, limit, location
        yield from ((where, constraint, location) for constraint in ("pattern", "enum") if constraint in shape)
        yield from getattr(self, f"of_{kind}", lambda *_: ())(shape, where, location)

    def of_structure(self, shape, where, location):
        if shape.get("union"):
            yield where, "none of a union", location
            if len(shape["members"]) > 1:
                yield where, "two of a union", location
        for name, reference in shape["members"].items():
            if name in shape.get("required", []):
                yield f"{where}.{name}", "required", location
            yield from self.of(reference["shape"], f"{where}.{name}", location)

    def of_list(self, shape, where, location):
        if location == "body":
            yield where, "null", location
        yield from self.of(shape["member"]["shape"], f"{where}[]", location)

    def of_map(self, shape, where, location):
        yield where, "null", location
        yield from self.of(shape["key"]["shape"], f"{where}{{key}}", "key")
        yield from self.of(shape["value"]["shape"], f"{where}{{value}}", location)


def in_models(of_operation):
    return {(operation, *rest) for service in model.VERSIONS for operation in model.names(service) for rest in of_operation(service, operation)}


def test_every_constraint_has_a_case():
    wanted = in_models(lambda service, operation: Document(service).constraints(operation))
    there = {case.key for operation in model.operations() for case in violations.cases(operation)}
    missing = {(operation, where, constraint) for operation, where, constraint, location in wanted if not exempt.constraint(constraint, location)} - there
    assert not missing, "constraints of the model without a case:\n  " + "\n  ".join(map(str, sorted(missing)))
    assert len(there) > 500, "the model gives cases"
    unknown = there - {key[:3] for key in wanted}
    assert not unknown, f"cases of no constraint of the model: {sorted(unknown)}"


@pytest.fixture
def marks(request):
    """{mark: the arguments it is given}, of all tests of this directory."""
    here = request.path.parent
    items = [item for item in request.config.stash[COLLECTED] if here in item.path.parents]
    if {path for path in here.glob("test_*.py")} - {item.path for item in items}:
        pytest.skip("needs the whole suite to be collected: run tests/suites/conformance")
    return {name: {args for item in items for mark in item.iter_markers(name) for args in [mark.args]} for name in ("answers", "provokes")}


def test_every_operation_is_called_validly(marks):
    called = {operation for args in marks["answers"] for operation in args}
    assert called <= set(model.operations()), "marks name operations"
    missing = set(model.operations()) - called - set(exempt.ANSWERS)
    assert not missing, f"operations without a valid call: {sorted(missing)}"
    needless = called & set(exempt.ANSWERS)
    assert not needless, f"exempt, though there is a case: {sorted(needless)}"


def test_every_declared_error_has_a_case(marks):
    declared = {(operation, error) for operation in model.operations() for error in model.declared_errors(operation)}
    excused = {pair for pair in declared if exempt.error(*pair)}
    assert marks["provokes"] <= declared, f"marks of errors that no operation declares: {sorted(marks['provokes'] - declared)}"
    missing = declared - marks["provokes"] - excused
    assert not missing, "declared errors without a case or a reason why there can be none:\n  " + "\n  ".join(map(str, sorted(missing)))
    needless = marks["provokes"] & excused
    assert not needless, f"exempt, though there is a case: {sorted(needless)}"


def test_exemptions_have_reasons_and_subjects():
    for (operation, error), reason in exempt.ERRORS.items():
        assert error in model.declared_errors(operation), (operation, error)
        assert len(re.findall(r"\w+", reason)) > 5, f"no reason: {reason}"
