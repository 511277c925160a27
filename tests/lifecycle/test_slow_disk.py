"""A disk that takes its time: what writes takes longer and ends, and nobody else waits for it. The slowness is made by the failpoints of the steps that write;
tests/engine/test_slow_disk.py has a disk that is really slow."""
import time

import pytest

from support.agreement import agree
from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import AUTO_RESUME, run
from support.waiting import until

WRITES = ("host.suspend.files", "host.suspend.memory_and_state", "host.suspend.sync")
SLOW_MS, WITHIN_SECONDS = 3000, 12


@pytest.fixture(autouse=True)
def fast_afterwards(daemon):
    yield
    daemon.arm("")


def test_a_slow_suspension_ends_and_holds_up_nobody(daemon, probe):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as slow, run(daemon, probe, idlePolicy=AUTO_RESUME) as other:
        checksum = slow.get("/touch?mib=20")["checksum"]
        other.get("/")
        daemon.arm("\n".join(f"{point}=delay({SLOW_MS})" for point in WRITES))
        slow.client.suspend_microvm(microvmIdentifier=slow.id)
        until("the first step is slow", lambda: daemon.went_off(WRITES[0]), 30, 0.01)
        # Points go off once: whatever is begun now is as fast as ever. All of it happens while the first one still waits for its disk.
        answered, launched, slept = 0, False, False
        while slow.state == "SUSPENDING" and not daemon.went_off(WRITES[-1]):
            assert other.get("/counter?add=1")["counter"] == answered + 1
            answered += 1
            if not launched:
                with run(daemon, probe) as third:
                    assert third.get("/")["application"] == "probe"
                launched = slow.state == "SUSPENDING"
        assert answered > 5 and launched
        slow.wait("SUSPENDED")
        # A request that comes meanwhile would have waited and woken it; so does one that comes now.
        touched = slow.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum
    agree(daemon)


def test_a_request_to_one_whose_suspension_is_slow_waits_and_wakes_it(daemon, probe):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        counter = microvm.get("/counter?add=1")["counter"]
        daemon.arm(f"{WRITES[1]}=delay({SLOW_MS})")
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        until("it is slow", lambda: daemon.went_off(WRITES[1]), 30, 0.01)
        assert microvm.get("/counter?add=1")["counter"] == counter + 1
        assert microvm.state == "RUNNING"


def test_a_slow_launch_and_a_slow_end_hold_up_nobody(daemon, probe):
    with run(daemon, probe) as other:
        daemon.arm(f"host.launch.disk=delay({SLOW_MS})\nhost.stop.process_end=delay({SLOW_MS})")
        answer = daemon.microvms.run_microvm(imageIdentifier=probe.arn)
        until("the launch is slow", lambda: daemon.went_off("host.launch.disk"), 30, 0.01)
        began, served = time.monotonic(), 0
        while daemon.microvms.get_microvm(microvmIdentifier=answer["microvmId"])["state"] == "PENDING":
            other.get("/")
            served += 1
            assert time.monotonic() - began < 60
        assert served > 5
        daemon.microvms.terminate_microvm(microvmIdentifier=answer["microvmId"])
        until("the end is slow", lambda: daemon.went_off("host.stop.process_end"), 30, 0.01)
        other.get("/")
        until("it ends", lambda: daemon.microvms.get_microvm(microvmIdentifier=answer["microvmId"])["state"] == "TERMINATED", 60)
    agree(daemon)


@pytest.fixture(scope="module")
def hasty(request):
    """A daemon of this module's own, that gives a suspension little time: more than a busy machine needs for one."""
    daemon = Daemon(config=f"[snapshot]\nwithin_seconds = {WITHIN_SECONDS}\n").start()
    yield daemon
    daemon.end(failed=request.session.testsfailed > 0)


@pytest.fixture(scope="module")
def image(hasty):
    return Images(hasty).probe("hasty", hooks=hooks(microvm=("suspend", "resume"))).built()


@pytest.mark.parametrize("point", WRITES)
def test_a_disk_that_hangs(hasty, image, point):
    """The suspension is given up, and the MicroVM goes on with everything it had."""
    with run(hasty, image, idlePolicy=AUTO_RESUME) as microvm:
        checksum = microvm.get("/touch?mib=20")["checksum"]
        hasty.arm(f"{point}=hang")
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        until("it is given up", lambda: microvm.state == "RUNNING", 60)
        assert "write the snapshot in time" in microvm.describe()["stateReason"]
        touched = microvm.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum
        assert abs(microvm.get("/clock")["unix"] - time.time()) < 1
        microvm.suspend().resume()
    agree(hasty)
