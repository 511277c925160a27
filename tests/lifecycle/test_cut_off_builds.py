"""Builds whose virtual machine stands still or dies under them. On a daemon of their own: then whose machine it is needs no asking."""
import contextlib
import os
import signal
import time

import pytest

from support import leaks
from support.daemon import Daemon
from support.images import Images, hooks
from support.waiting import until

# Longer than a connection gives a guest that acknowledges nothing, where it does so.
STANDS_STILL_SECONDS = 25
TOLD_WITHIN = 10
FIRST_STEP, AWAITED, ANEW = "STEP 1/", "waiting for /ready", "the build was cut off, beginning anew: "


@pytest.fixture(scope="module")
def own():
    with Daemon().serving() as daemon:
        yield daemon


def says(image, words, times=1, seconds=120):
    until(f"the build's log says {words!r}", lambda: "".join(image.logs()).count(words) >= times, seconds, 0.2)


def machine(daemon):
    [pid] = leaks.virtual_machines_in(daemon.data)
    return pid


def test_a_builder_that_stands_still_goes_on(own):
    image = Images(own).probe("stands-still")
    says(image, FIRST_STEP)
    builder = machine(own)
    os.kill(builder, signal.SIGSTOP)
    try:
        time.sleep(STANDS_STILL_SECONDS)
    finally:
        # One that was given up is gone, and the build says why.
        with contextlib.suppress(ProcessLookupError):
            os.kill(builder, signal.SIGCONT)
    image.built()
    assert ANEW not in "".join(image.logs())


def test_a_machine_that_dies_is_begun_anew_once(own):
    image = Images(own).probe("dies", {"PROBE_READY": "hang"}, hooks=hooks(ready=300))
    for death in (1, 2):
        says(image, AWAITED, death)
        os.kill(machine(own), signal.SIGKILL)
        killed = time.monotonic()
        if death == 1:
            says(image, ANEW, seconds=TOLD_WITHIN)
    reason = image.failure()
    assert time.monotonic() - killed < TOLD_WITHIN, "nobody waits for a dead machine"
    assert reason.startswith("INTERNAL_PLATFORM_ERROR: The build was cut off: "), reason
