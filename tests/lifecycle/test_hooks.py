"""Hooks that hang, applications that have died, agents that do not answer: each has an outcome, in bounded time (docs/operations.md has the table)."""
import os
import signal
import time

import pytest

from support.images import hooks
from support.microvm import run
from support.waiting import until

BEHAVIOURS = {
    "suspend-hangs": ({"PROBE_SUSPEND": "hang"}, {"suspend": 2}),
    "terminate-hangs": ({"PROBE_TERMINATE": "hang"}, {"terminate": 2}),
    "terminate-refuses": ({"PROBE_TERMINATE": "500"}, {"terminate": 2}),
    "resume-hangs": ({"PROBE_RESUME": "hang"}, {"resume": 2}),
}


@pytest.fixture(scope="module")
def misbehaving(images):
    made = {}
    for name, (environment, timeouts) in BEHAVIOURS.items():
        made[name] = images.probe(name, environment, hooks=hooks(microvm=("suspend", "resume", "terminate"), **timeouts))
    return made


def refused_suspend(microvm, reason, within=30):
    """It was asked to be suspended: it runs on and says why."""
    microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
    told = until("the reason is told", lambda: microvm.describe().get("stateReason"), within)
    assert told.startswith(reason), told
    until("it runs", lambda: microvm.state == "RUNNING", within)


def test_a_suspend_hook_that_hangs_leaves_it_running(misbehaving, daemon):
    with run(daemon, misbehaving["suspend-hangs"].built()) as microvm:
        counter = microvm.get("/counter?add=1")["counter"]
        refused_suspend(microvm, "Suspend hook invocation timed out after PT2S")
        assert microvm.get("/counter?add=0")["counter"] == counter


@pytest.mark.parametrize("name", ["terminate-hangs", "terminate-refuses"])
def test_the_end_comes_whatever_the_terminate_hook_does(misbehaving, daemon, name):
    microvm = run(daemon, misbehaving[name].built())
    began = time.monotonic()
    microvm.terminate()
    assert (time.monotonic() - began > 1.9) == (name == "terminate-hangs"), "the hook has its time, and no more"
    assert microvm.describe().get("stateReason") is None
    assert microvm.process() is None
    until("its files are gone", lambda: not microvm.directory.exists())


def test_a_resume_hook_that_hangs_ends_it(misbehaving, daemon):
    microvm = run(daemon, misbehaving["resume-hangs"].built()).suspend()
    microvm.client.resume_microvm(microvmIdentifier=microvm.id)
    microvm.wait("TERMINATED")
    assert microvm.describe()["stateReason"] == "Resume hook invocation timed out after PT2S"


def test_an_application_that_has_died(daemon, probe):
    """Its MicroVM goes on: an operator may want to look. It cannot be suspended by a hook nobody hears, and ends like any other."""
    with run(daemon, probe) as microvm:
        microvm.get("/exit?code=3")
        until("nothing listens", lambda: microvm.request("GET", "/").status_code == 502, 20)
        refused_suspend(microvm, "Suspend lifecycle hook could not be called")
        microvm.terminate()
        assert microvm.process() is None


def test_agents_that_do_not_answer(daemon, misbehaving):
    """A guest that has stopped altogether: its process is stopped, so neither agent nor monitor answers."""
    image = misbehaving["suspend-hangs"].built()
    with run(daemon, image) as suspended, run(daemon, image) as terminated:
        counter = suspended.get("/counter?add=1")["counter"]
        stopped = [suspended.process(), terminated.process()]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            suspended.client.suspend_microvm(microvmIdentifier=suspended.id)
            terminated.client.terminate_microvm(microvmIdentifier=terminated.id)
            terminated.wait("TERMINATED", 60)
            reason = until("the suspension has failed", lambda: suspended.describe().get("stateReason"), 120)
            assert "INTERNAL_PLATFORM_ERROR: suspend failed" in reason
            assert suspended.state == "RUNNING"
        finally:
            os.kill(stopped[0], signal.SIGCONT)
        assert suspended.get("/counter?add=0")["counter"] == counter, "it goes on where it was"
