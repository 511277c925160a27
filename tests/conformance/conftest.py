"""Fixtures of the conformance suite. It runs against a daemon of its own, or against the endpoint that EMBERBOX_CONFORMANCE_ENDPOINT names; see README.md."""
import os

import pytest

from support import shapes
from support.endpoint import REMOTE, Remote
from support.images import Images
from support.raw import Caller
from support.waiting import until

COLLECTED = pytest.StashKey[list]()


@pytest.fixture(scope="session")
def endpoint(request):
    """What is tested."""
    url = os.environ.get(REMOTE)
    return Remote(url) if url else request.getfixturevalue("daemon")


@pytest.fixture(scope="session")
def own_daemon(request):
    """For tests that restart the daemon, read its files or configure it."""
    if os.environ.get(REMOTE):
        pytest.skip(f"needs a daemon of its own, and {REMOTE} names another")
    return request.getfixturevalue("daemon")


@pytest.fixture(scope="session")
def caller(endpoint):
    return Caller(endpoint)


@pytest.fixture(scope="session")
def images(endpoint):
    return Images(endpoint)


@pytest.fixture
def failed_image(caller):
    """Waits for the build of an image to fail, as one does whose artifact is not there, and deletes the image when the test ends."""
    arns = []

    def wait(arn):
        arns.append(arn)
        until(f"the build of {arn} fails", lambda: caller.call("GetMicrovmImage", {"imageIdentifier": arn}).json["state"].endswith("_FAILED"))

    yield wait
    for arn in arns:
        assert caller.call("DeleteMicrovmImage", {"imageIdentifier": arn}).status == 200


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """What there is, before anything is deselected."""
    config.stash[COLLECTED] = list(items)


@pytest.fixture(autouse=True)
def kept_promises(request):
    """A test marked `answers(operation)` or `provokes(operation, error)` has seen just that, or it fails: marks are what the coverage test counts."""
    answered, refused = len(shapes.ANSWERED), len(shapes.REFUSED)
    yield
    if getattr(request.node, "failed", False):
        return
    for mark in request.node.iter_markers("answers"):
        missing = set(mark.args) - set(shapes.ANSWERED[answered:])
        assert not missing, f"marked as answered, but never was: {missing}"
    for mark in request.node.iter_markers("provokes"):
        assert mark.args in shapes.REFUSED[refused:], f"marked as provoked, but never was: {mark.args}"
