"""What holds where the CPU has virtualization, in the lab or on a host that has it: the engine is KVM's, and limits are the kernel's, not ours to keep."""
import mmap
import os
import signal
from pathlib import Path

import pytest

from support.agreement import agree
from support.microvm import run
from support.waiting import until

MIB = 1 << 20


@pytest.fixture(scope="module")
def microvm(daemon, probe):
    with run(daemon, probe) as microvm:
        yield microvm


def group_of(microvm):
    [path] = [line[3:] for line in Path(f"/proc/{microvm.process()}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return Path("/sys/fs/cgroup") / path.lstrip("/")


def in_group(group, work):
    """Runs `work` in a child that has moved into the group, and returns what ended the child: its exit code, or minus a signal."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            (group / "cgroup.procs").write_text("0")
            # Whom the kernel ends when memory runs out.
            Path("/proc/self/oom_score_adj").write_text("1000")
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_engine_is_kvm(daemon):
    chosen = [event["identity"] for event in daemon.events() if event.get("message") == "engine chosen"]
    assert chosen and all("kvm" in identity for identity in chosen), chosen


def test_a_process_that_grows_without_end_is_ended(microvm):
    group = group_of(microvm)
    limit = int((group / "memory.max").read_text())

    def grow():
        memory = mmap.mmap(-1, limit + 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, len(memory), mmap.PAGESIZE * 8):
            memory[offset] = 1
        return 0

    assert in_group(group, grow) == -signal.SIGKILL
    assert "oom_kill 0" not in (group / "memory.events").read_text()
    assert microvm.get("/")["application"] == "probe", "the guest beside it goes on"


def test_a_virtual_machine_at_its_limit_of_memory_is_ended_and_the_reason_says_so(daemon, probe, microvm):
    with run(daemon, probe) as doomed:
        doomed.get("/touch?mib=16")
        group = group_of(doomed)
        # Less than the guest has changed: there is nothing to take back.
        (group / "memory.max").write_text(str(8 * MIB))
        doomed.wait("TERMINATED")
        reason = doomed.describe()["stateReason"]
        assert reason.startswith("The MicroVM ended unexpectedly: its virtual machine process was ended by the host's limit of memory for it"), reason
        until("its group is gone", lambda: not group.exists(), 10)
    assert microvm.get("/")["application"] == "probe", "its neighbour goes on"
    agree(daemon)


def test_a_process_that_multiplies_is_refused(microvm):
    group = group_of(microvm)
    limit = int((group / "pids.max").read_text())

    def multiply():
        children = []
        try:
            for _ in range(limit + 1):
                child = os.fork()
                if child == 0:
                    signal.pause()
                children.append(child)
            return 1
        except BlockingIOError:
            return 0
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)

    assert in_group(group, multiply) == 0
    assert microvm.get("/")["application"] == "probe"
