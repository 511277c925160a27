"""A disk that is really slow: what waits is the kernel's file system, not a failpoint. A suspension that it cannot write is given up, and nobody else waits for it."""
import time

import pytest

from support.agreement import agree
from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import AUTO_RESUME, launch, run
from support.slow_disk import SlowDisk
from support.waiting import until

DISK_MIB = 4096
# A suspension syncs a handful of files, each by several writes after each other. Much slower, and calls fail for another reason: records are on that disk, too.
WITHIN_SECONDS, SLOW_MS = 6, 1500
GIVEN_UP = "INTERNAL_PLATFORM_ERROR: suspend failed: write the snapshot in time"


@pytest.fixture(scope="module")
def disk():
    with SlowDisk(DISK_MIB) as disk:
        yield disk


@pytest.fixture(scope="module")
def slow(disk, request):
    """A daemon whose data is on the disk."""
    directory = disk.mount / "daemon"
    directory.mkdir()
    daemon = Daemon(directory, f"[snapshot]\nwithin_seconds = {WITHIN_SECONDS}\n")
    daemon.log = disk.directory / "daemon.log"
    daemon.start()
    try:
        yield daemon
    finally:
        disk.hold(0)
        daemon.end(failed=request.session.testsfailed > 0)


@pytest.fixture(scope="module")
def image(slow):
    return Images(slow).probe("slow", hooks=hooks(microvm=("suspend", "resume"))).built()


@pytest.fixture(autouse=True)
def fast_afterwards(disk):
    yield
    disk.hold(0)


def suspend_in_vain(microvm, meanwhile):
    """Asks for a suspension, and calls `meanwhile` for as long as it is under way."""
    microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
    called = 0
    while microvm.state == "SUSPENDING":
        meanwhile()
        called += 1
    assert microvm.state == "RUNNING"
    return called, microvm.describe()["stateReason"]


def suspends(microvm):
    """Whether it can be suspended, now."""
    microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
    return until("it is decided", lambda: microvm.state in ("RUNNING", "SUSPENDED") and microvm.state) == "SUSPENDED"


def test_a_suspension_is_given_up_and_holds_up_nobody(slow, disk, image):
    with run(slow, image, idlePolicy=AUTO_RESUME) as suspended, run(slow, image) as other:
        checksum = suspended.get("/touch?mib=8")["checksum"]
        counted = other.get("/counter?add=0")["counter"]
        disk.hold(SLOW_MS)
        # Others are launched meanwhile, at the disk's pace.
        third = launch(slow, image)

        def meanwhile():
            nonlocal counted
            counted = counted + 1
            assert other.get("/counter?add=1")["counter"] == counted
        called, reason = suspend_in_vain(suspended, meanwhile)
        assert reason == GIVEN_UP and called > 5, f"{reason}, {called} answers meanwhile"
        assert suspended.get("/touched")["checksum"] == checksum
        assert abs(suspended.get("/clock")["unix"] - time.time()) < 1
        # Once more while what was given up still waits for the disk: no file of one is the other's.
        assert suspend_in_vain(suspended, meanwhile)[1].startswith("INTERNAL_PLATFORM_ERROR: suspend failed: ")
        with third.wait("RUNNING"):
            assert third.get("/")["application"] == "probe"
        disk.hold(0)
        until("it can be suspended on a disk that works", lambda: suspends(suspended), 60, 1)
        touched = suspended.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum
    agree(slow)
