"""A disk that is really slow: what waits is the kernel's file system, not a failpoint. A suspension that it cannot write is given up, and nobody else waits for it."""
import subprocess
import time
from pathlib import Path

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
# Reads of an application with several threads, on a disk that takes so long for each.
READS, THREADS, READ_MS, FILE_MIB, COLD_ROUNDS = 64, 8, 100, 16, 3
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


def seconds_of_reads(slow, disk, image):
    """What the reads take that find nothing in the host's page cache: the least of some times, for the guest's own memory, and the blocks that its journal
    writes for the first time, come from that disk, too."""
    with run(slow, image) as microvm:
        reads = f"/disk?name=cold&mib={FILE_MIB}&block_kib=4&random=1&operations={READS}&threads={THREADS}"
        microvm.get(f"/disk?name=cold&mib={FILE_MIB}&write=1")
        microvm.get(reads)
        took = []
        for _ in range(COLD_ROUNDS):
            subprocess.run(["sync"], check=True)
            Path("/proc/sys/vm/drop_caches").write_text("3")
            disk.hold(0, READ_MS)
            took.append(microvm.get(reads)["seconds"])
            disk.hold(0)
        return min(took)


def test_reads_that_come_together_are_under_way_together(slow, disk, image):
    """Last: the daemon goes on with another configuration."""
    if 'engine: "kvm"' not in slow.engine():
        pytest.skip("QEMU's disks are QEMU's")
    together = seconds_of_reads(slow, disk, image)
    text = slow.config.read_text()
    slow.config.write_text(text.replace("[engine]", "[engine]\nio_uring = false") if "[engine]" in text else text + "\n[engine]\nio_uring = false\n")
    slow.restart("stop")
    alone = seconds_of_reads(slow, disk, image)
    print(f"{READS} reads by {THREADS} threads, {READ_MS} ms each: together {together:.2f} s, one after the other {alone:.2f} s")
    assert alone > READS * READ_MS / 1000, "each of them has waited for the disk"
    assert together < alone / 3
