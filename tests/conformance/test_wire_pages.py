"""docs/wire has a page for each operation, which names every member and every declared error of the model and says of each behaviour how it is known."""
import re
import subprocess
import sys

import pytest

from support import model, paths

PAGES = paths.ROOT / "docs/wire"
KNOWN = {"documented", "observed", "model", "ours"}


def sections(operation):
    """{heading: lines} of a page."""
    found, heading = {}, ""
    for line in (PAGES / f"{operation}.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        found.setdefault(heading, []).append(line)
    return found


def cells(lines):
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    return rows[2:]


def test_what_is_of_the_model_is_up_to_date():
    """`scripts/wire-pages` writes it."""
    result = subprocess.run([sys.executable, paths.ROOT / "scripts/wire-pages", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, f"run scripts/wire-pages: {result.stdout}{result.stderr}"


@pytest.mark.parametrize("operation", model.operations())
def test_page(operation):
    page = sections(operation)
    request, answer = (model.operations()[operation].input_shape, model.operations()[operation].output_shape)
    for heading, shape in (("Request", request), ("Answer", answer)):
        named = {row[0].strip("`") for row in cells(page[heading])}
        assert set(shape.members if shape else ()) <= named, f"members that {heading} does not name"
    behaviour = cells(page["Behaviour"])
    assert behaviour, "nothing is said of what it does"
    for what, known in behaviour:
        assert what and set(known.split(", ")) <= KNOWN, f"how is it known? {what}: {known}"
    errors = dict(cells(page["Errors"]))
    assert set(errors) == set(model.declared_errors(operation)) and all(errors.values())


def test_no_page_is_of_nothing():
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert pages == set(model.operations())
