"""A host that runs out of disk or descriptors: nothing half-made is used, what runs goes on, and the API says why."""
import errno
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import launch, run
from support.waiting import until

MIB = 1 << 20
# Room for one image of the probe, its builder's memory, and little else.
DISK_MIB, RESERVE_MIB = 3072, 64
FULL = "DISK_STORAGE_FULL"


class SmallDisk:
    """A file system of its own for a daemon's data, taken away whatever happens."""

    def __init__(self, mib):
        self.directory = Path(tempfile.mkdtemp(prefix="emberbox-disk-"))
        self.image, self.mount = self.directory / "image", self.directory / "mount"
        self.mount.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(mib * MIB)

    def __enter__(self):
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)
        return self

    def __exit__(self, *_):
        if subprocess.run(["umount", self.mount]).returncode:
            # A test has left something open; the machine must not keep the mount for that.
            subprocess.run(["umount", "--lazy", self.mount], check=True)
        self.image.unlink()
        self.mount.rmdir()
        self.directory.rmdir()

    @property
    def free(self):
        found = os.statvfs(self.mount)
        return found.f_bavail * found.f_frsize

    def leave(self, mib):
        """Fills the disk up to so many MiB with a file that is really there."""
        self.release()
        missing = self.free - mib * MIB
        if missing > 0:
            with open(self.mount / "ballast", "wb") as file:
                # Whoever else writes meanwhile may have been first to the last block.
                try:
                    os.posix_fallocate(file.fileno(), 0, missing)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def release(self):
        (self.mount / "ballast").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disk():
    with SmallDisk(DISK_MIB) as disk:
        yield disk


@pytest.fixture(scope="module")
def small(disk):
    """A daemon whose data is on the small disk."""
    directory = disk.mount / "daemon"
    directory.mkdir()
    daemon = Daemon(directory, f"[storage]\nreserve_mib = {RESERVE_MIB}\n").start()
    failed = True
    try:
        yield daemon
        failed = False
    finally:
        disk.release()
        daemon.end(failed)


@pytest.fixture(scope="module")
def image(small):
    return Images(small).probe("small", hooks=hooks(("ready",), ("suspend", "resume"))).built()


@pytest.fixture(autouse=True)
def room_afterwards(disk):
    yield
    disk.release()


def test_a_suspension_without_space_leaves_the_microvm_running(small, disk, image):
    with run(small, image) as microvm:
        checksum = microvm.get("/touch?mib=100")["checksum"]
        disk.leave(RESERVE_MIB + 80)
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        until("it is said", lambda: FULL in (microvm.describe().get("stateReason") or ""))
        assert microvm.state == "RUNNING" and microvm.process()
        # It was refused before anybody was told: no hook was called, nothing stands still, nothing half-made is left.
        assert "suspend" not in [call["hook"] for call in microvm.get("/hooks")["hooks"]]
        assert {path.name for path in microvm.directory.iterdir()} == {"disk.qcow2", "machine.json", "qmp.sock"}
        disk.release()
        microvm.suspend().resume()
        touched = microvm.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum


def test_a_disk_that_fills_up_during_a_suspension(small, disk, image):
    """Somebody takes the space after it was looked for: the machine is thawed and goes on, with its clock right."""
    with run(small, image) as microvm:
        checksum = microvm.get("/touch?mib=300")["checksum"]
        refused = None
        for _ in range(5):
            microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
            # The files appear when space has been looked for and the machine stands still.
            try:
                until("the snapshot is being written", lambda: (microvm.directory / "snapshot.new/memory").exists(), 10, 0.001)
                disk.leave(1)
            except TimeoutError:
                pass
            until("it is decided", lambda: microvm.state in ("RUNNING", "SUSPENDED"))
            disk.release()
            if microvm.state == "RUNNING":
                refused = microvm.describe()["stateReason"]
                break
            microvm.resume()
            microvm.get("/touch?mib=1")
            checksum = microvm.get("/touched")["checksum"]
        assert refused and FULL in refused, refused
        assert not (microvm.directory / "snapshot").exists() and not (microvm.directory / "snapshot.new").exists()
        assert microvm.get("/touched")["checksum"] == checksum
        assert abs(microvm.get("/clock")["unix"] - time.time()) < 1
        microvm.suspend().resume()
        assert microvm.get("/touched")["intact"]


def test_a_launch_without_space(small, disk, image):
    disk.leave(RESERVE_MIB - 8)
    microvm = launch(small, image)
    microvm.wait("TERMINATED")
    assert FULL in microvm.describe()["stateReason"]
    assert not microvm.directory.exists()
    disk.release()
    with run(small, image) as again:
        assert again.get("/")["application"] == "probe"


def test_a_build_without_space(small, disk):
    disk.leave(RESERVE_MIB + 200)
    assert FULL in Images(small).probe("none").failure()
    disk.release()


def test_a_disk_that_fills_up_during_a_build(small, disk):
    image = Images(small).probe("filling")
    work = small.data / "host/work"
    until("the builder runs", lambda: any(work.glob("build-*/memory")), 60)
    disk.leave(1)
    assert FULL in image.failure()
    disk.release()
    assert not any(work.iterdir())
    image.delete()


def test_without_descriptors_a_launch_is_refused_with_the_reason(small, image):
    pid = small.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with run(small, image) as microvm:
        opened = len(os.listdir(f"/proc/{pid}/fd"))
        try:
            # Enough to be asked, not enough to start a virtual machine.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 6, before[1]))
            refused = launch(small, image)
            time.sleep(2)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        shown = refused.wait("TERMINATED").describe()
        assert "the host is out of file descriptors" in shown["stateReason"]
        # What ran goes on, and the next one is launched.
        assert microvm.get("/")["application"] == "probe"
    with run(small, image) as again:
        assert again.get("/")["application"] == "probe"
