"""Fixtures of all suites."""
import os

import pytest

from support.daemon import Daemon
from support.images import Images, hooks
from support.shapes import CHECKED

MICROVM_HOOKS = ("run", "suspend", "resume", "terminate")


@pytest.fixture(scope="session")
def daemon(request):
    """One daemon for the session. At its end everything is terminated and nothing may be left."""
    if os.geteuid() != 0:
        pytest.fail("these suites start real MicroVMs: run them as root", pytrace=False)
    daemon = Daemon().start()
    yield daemon
    daemon.end(failed=request.session.testsfailed > 0)


@pytest.fixture(scope="session")
def images(daemon):
    return Images(daemon)


@pytest.fixture(scope="session")
def probe_build(images):
    """The build of the well-behaved probe with every hook; it may still be under way."""
    return images.probe("probe", {"COLOUR": "blue"}, hooks=hooks(("ready", "validate"), MICROVM_HOOKS))


@pytest.fixture(scope="session")
def probe(probe_build):
    return probe_build.built()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a person may skip, CI must not."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """What a worker has seen comes to the process that reports."""
    CHECKED.update(getattr(node, "workeroutput", {}).get("checked", ()))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["checked"] = sorted(CHECKED)


def pytest_terminal_summary(terminalreporter):
    if CHECKED:
        terminalreporter.write_line(f"answers held against the service's model: {len(CHECKED)} operations: {', '.join(sorted(CHECKED))}")
