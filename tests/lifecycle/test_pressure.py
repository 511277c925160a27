"""A host that runs out of disk, descriptors or processes: nothing half-made is used, what runs goes on, and the API says why."""
import errno
import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

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
        # Where nobody has asked for one yet, and nobody loads the module at the first, there are no loop devices.
        Path("/dev/loop-control").exists() or subprocess.run(["modprobe", "loop"], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)
        return self

    def __exit__(self, *_):
        if subprocess.run(["umount", self.mount]).returncode:
            # A test has left something open; the machine must not keep the mount for that.
            subprocess.run(["umount", "--lazy", self.mount], check=True)
        (self.directory / "daemon.log").unlink(missing_ok=True)
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
    daemon = Daemon(directory, f"[storage]\nreserve_mib = {RESERVE_MIB}\n")
    # Not on the disk that is going to be full.
    daemon.log = disk.directory / "daemon.log"
    with daemon.serving():
        try:
            yield daemon
        finally:
            disk.release()


@pytest.fixture(scope="module")
def image(small):
    return Images(small).probe("small", hooks=hooks(("ready",), ("suspend", "resume"))).built()


@pytest.fixture(autouse=True)
def room_afterwards(disk):
    yield
    disk.release()


def refusal(daemon, image):
    """What RunMicrovm says that begins nothing for want of something."""
    def live():
        return set(daemon.live_microvms())
    before = live()
    with pytest.raises(ClientError) as failed:
        launch(daemon, image)
    answer = failed.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("InsufficientCapacityException", 500)
    assert answer["Error"]["Message"].endswith("Retry later.") and live() == before
    return answer["Error"]["Message"]


def test_a_suspension_without_space_leaves_the_microvm_running(small, disk, image):
    with run(small, image) as microvm:
        checksum = microvm.get("/touch?mib=100")["checksum"]
        disk.leave(RESERVE_MIB + 80)
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        until("it is said", lambda: FULL in (microvm.describe().get("stateReason") or ""))
        assert microvm.state == "RUNNING" and microvm.process()
        # It was refused before anybody was told: no hook was called, nothing stands still, nothing half-made is left.
        assert "suspend" not in [call["hook"] for call in microvm.get("/hooks")["hooks"]]
        assert {path.name for path in microvm.directory.iterdir()} == {"disk.qcow2", "machine.json", "qmp.sock" if "qemu" in small.engine() else "control.sock"}
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
    assert FULL in refusal(small, image)
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
    with run(small, image) as microvm, run(small, image) as asleep:
        asleep.suspend()
        opened = len(os.listdir(f"/proc/{pid}/fd"))
        try:
            # Enough to be asked, not enough to start a virtual machine.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 20, before[1]))
            said = refusal(small, image)
            assert "the host is out of file descriptors" in said and "RLIMIT_NOFILE" in said
            asleep.client.resume_microvm(microvmIdentifier=asleep.id)
            until("the wake is refused", lambda: "out of file descriptors" in (asleep.describe().get("stateReason") or ""))
            assert asleep.state == "SUSPENDED"
            assert microvm.get("/")["application"] == "probe"
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        # What ran goes on, what slept wakes, and the next one is launched.
        assert microvm.get("/")["application"] == asleep.resume().get("/")["application"] == "probe"
    with run(small, image) as again:
        assert again.get("/")["application"] == "probe"


def test_what_happens_on_a_full_disk_is_written_down(small, disk, image):
    """The records have space of their own, which nobody else can take: changes are recorded, and what runs can be ended."""
    with run(small, image) as microvm:
        disk.leave(0)
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        until("it is said", lambda: FULL in (microvm.describe().get("stateReason") or ""))
        assert FULL in refusal(small, image)
        assert microvm.get("/")["application"] == "probe"
        # A daemon that dies now comes back on the same full disk, and does not mind that its log is there, too.
        log, small.log = small.log, small.directory / "daemon.log"
        small.restart("kill")
        assert microvm.get("/")["application"] == "probe"
        microvm.terminate()
        small.log = log
        small.restart("stop")
        disk.release()


def test_when_even_the_records_cannot_be_written(small, disk, image):
    """What was set aside for them is taken away: calls fail with the reason, what runs goes on, and when there is space again so does the daemon."""
    database = small.data / "emberbox.db"
    client = small.microvms
    with run(small, image) as microvm:
        def tag(number):
            client.tag_resource(Resource=image.arn, Tags={f"key-{number % 40}": f"{number} {'x' * 240}"})
        try:
            # The space behind the files' ends. Whoever else writes has been faster, as a rule.
            for _ in range(3):
                Path(f"{database}-reserve").unlink(missing_ok=True)
                for path in (Path(f"{database}-wal"), database):
                    os.truncate(path, path.stat().st_size)
                disk.leave(0)
            with pytest.raises(ClientError) as failed:
                for number in range(3000):
                    tag(number)
            answer = failed.value.response
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500 and answer["Error"]["Code"] == "InternalServerException"
            assert FULL in answer["Error"]["Message"] and "Retry later" in answer["Error"]["Message"]
            assert any("free some of its space" in json.dumps(event) for event in small.events())
            # Nothing is begun that could not be written down, and what runs goes on.
            with pytest.raises(ClientError) as failed:
                client.suspend_microvm(microvmIdentifier=microvm.id)
            assert FULL in failed.value.response["Error"]["Message"]
            assert microvm.state == "RUNNING" and microvm.get("/")["application"] == "probe"
        finally:
            disk.release()

        def recovered():
            try:
                return tag(0) or True
            except ClientError:
                return False
        until("the daemon goes on by itself", recovered, 30, 0.2)
        until("space is set aside again", lambda: database.stat().st_blocks * 512 >= database.stat().st_size + 4 * MIB, 10)
        microvm.suspend().resume()
        assert microvm.get("/")["application"] == "probe"


class FewProcesses:
    """A pids cgroup for a daemon. What it starts belongs to it, too."""
    # cgroup v1 beside others' v2, or v2 alone.
    ROOT = Path("/sys/fs/cgroup/pids") if Path("/sys/fs/cgroup/pids").is_dir() else Path("/sys/fs/cgroup")

    def __init__(self, daemon):
        self.group, self.pid = self.ROOT / f"emberbox-test-{os.getpid()}", daemon.process.pid

    def __enter__(self):
        self.group.mkdir()
        if not (self.group / "pids.max").exists():
            self.group.rmdir()
            pytest.skip("this machine has no pids controller for a cgroup of the test's")
        (self.group / "cgroup.procs").write_text(str(self.pid))
        return self

    def leave(self, processes):
        used = int((self.group / "pids.current").read_text())
        (self.group / "pids.max").write_text(str(used + processes))

    def release(self):
        (self.group / "pids.max").write_text("max")

    def __exit__(self, *_):
        self.release()
        for pid in (self.group / "cgroup.procs").read_text().split():
            try:
                (self.ROOT / "cgroup.procs").write_text(pid)
            except ProcessLookupError:
                pass
        until("the cgroup is empty", lambda: not (self.group / "cgroup.procs").read_text(), 10)
        self.group.rmdir()


def test_without_processes_a_launch_is_refused_with_the_reason(small, image):
    # Before, so that it is in no cgroup of ours.
    with run(small, image) as microvm, FewProcesses(small) as few:
        few.leave(0)
        said = refusal(small, image)
        assert said.startswith("HOST_EXHAUSTED") and "TasksMax=" in said, said
        assert microvm.get("/")["application"] == "probe", "what ran goes on"
        # One for the virtual machine, but not its threads: only the launch finds out. A monitor that stands ready has them all.
        few.leave(2)
        limited = launch(small, image)
        if "qemu" in small.engine():
            reason = limited.wait("TERMINATED").describe()["stateReason"]
            assert reason.startswith("HOST_EXHAUSTED") and "TasksMax=" in reason, reason
            assert not limited.directory.exists()
        else:
            limited.wait("RUNNING").terminate()
        assert microvm.get("/")["application"] == "probe"
        few.release()
        with run(small, image) as again:
            assert again.get("/")["application"] == "probe"


def test_virtual_machines_have_a_limit_of_processes_of_their_own(small, image):
    """Of their user (RLIMIT_NPROC), whether or not there are cgroups. One lower than they need is called by its name; the own monitor sets its own."""
    pid = small.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NPROC)
    with run(small, image) as microvm:
        [limit] = [line for line in Path(f"/proc/{microvm.process()}/limits").read_text().splitlines() if line.startswith("Max processes")]
        soft, hard = map(int, limit.split()[2:4])
        assert 0 < soft == hard <= 128 + 1
        try:
            resource.prlimit(pid, resource.RLIMIT_NPROC, (2, before[1]))
            limited = launch(small, image)
            if "qemu" in Path(f"/proc/{microvm.process()}/cmdline").read_text():
                reason = limited.wait("TERMINATED").describe()["stateReason"]
                assert reason.startswith("HOST_EXHAUSTED") and "RLIMIT_NPROC" in reason, reason
            else:
                limited.wait("RUNNING").terminate()
        finally:
            resource.prlimit(pid, resource.RLIMIT_NPROC, before)
        assert microvm.get("/")["application"] == "probe"
        with run(small, image) as again:
            assert again.get("/")["application"] == "probe"


def test_a_limit_of_open_files_that_is_too_low_is_said_and_the_soft_one_raised(image):
    """A daemon of its own, which starts with 300."""
    def low():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
    with Daemon(prepare=low).serving() as daemon:
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (300, 300)
        [said] = [event for event in daemon.events() if "the limit of open files" in event.get("message", "")]
        assert said["limit"] == 300 and said["wanted"] > 300
