"""MicroVMs that end unasked, or cannot begin for want of memory: the reason says what is known, the others go on, nothing is left."""
import contextlib
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from support.agreement import agree
from support.microvm import AUTO_RESUME, launch, run
from support.waiting import until

MIB = 1 << 20
# What the daemon may still grow by. A guest's memory is 2048.
LITTLE_MIB = 512
UNASKED = "The MicroVM ended unexpectedly: "


def die_talking(microvm):
    """Has its virtual machine process print something and end; returns a part of what it printed."""
    process, control = microvm.process(), microvm.directory / "control.sock"
    if not control.exists():
        os.kill(process, signal.SIGTERM)
        return "terminating on signal 15"
    # The own monitor, the first process of its namespace, hears no signal but this one. A line without an end is worth a word to it before it hangs up.
    directory = os.open(microvm.directory, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.connect(f"/proc/self/fd/{directory}/{control.name}")
        connection.sendall(b"\x1b[31m" + b"x" * MIB)
    os.close(directory)
    os.kill(process, signal.SIGKILL)
    return "a control connection is closed"


@pytest.mark.parametrize("adopted", (False, True))
def test_the_last_words_are_in_the_reason(daemon, probe, adopted):
    with run(daemon, probe) as microvm, run(daemon, probe) as other:
        if adopted:
            daemon.restart("kill")
        words = die_talking(microvm)
        microvm.wait("TERMINATED")
        reason = microvm.describe()["stateReason"]
        assert reason.startswith(f"{UNASKED}its virtual machine process ") and words in reason, reason
        assert len(reason) < 1024 and "\x1b" not in reason
        # All of it, as text, is in the log.
        assert any(words in event.get("output", "") for event in daemon.events())
        assert other.get("/")["application"] == "probe"
    agree(daemon)


def test_a_death_by_signal(daemon, probe):
    with run(daemon, probe) as microvm:
        os.kill(microvm.process(), signal.SIGKILL)
        microvm.wait("TERMINATED")
        assert microvm.describe()["stateReason"].startswith(f"{UNASKED}its virtual machine process was ended by signal 9")
    agree(daemon)


def size_mib(pid):
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmSize:")]
    return int(line.split()[1]) // 1024


def children(pid):
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@contextlib.contextmanager
def little_memory(daemon, spared):
    """What the daemon starts from now on may not map a guest's memory; nor may the monitors that stand ready."""
    limited = {pid: resource.prlimit(pid, resource.RLIMIT_AS) for pid in [daemon.process.pid, *children(daemon.process.pid)] if pid not in spared}
    for pid, (_, hard) in limited.items():
        resource.prlimit(pid, resource.RLIMIT_AS, ((size_mib(pid) + LITTLE_MIB) * MIB, hard))
    try:
        yield
    finally:
        for pid, before in limited.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, before)
        # What was started meanwhile has inherited the limit.
        for pid in set(children(daemon.process.pid)) - set(spared):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_virtual_machine_that_gets_no_memory(daemon, probe):
    with run(daemon, probe) as microvm, run(daemon, probe, idlePolicy=AUTO_RESUME) as asleep:
        counter = asleep.get("/counter?add=3")["counter"]
        asleep.suspend()
        with little_memory(daemon, spared=[microvm.process()]):
            refused = launch(daemon, probe).wait("TERMINATED")
            reason = refused.describe()["stateReason"]
            assert reason == "HOST_EXHAUSTED: launch failed: the host is out of memory", reason
            assert not refused.directory.exists()
            asleep.client.resume_microvm(microvmIdentifier=asleep.id)
            reason = until("the wake is refused", lambda: asleep.describe().get("stateReason"))
            assert reason == "HOST_EXHAUSTED: resume failed: the host is out of memory", reason
            assert asleep.state == "SUSPENDED"
            assert microvm.get("/")["application"] == "probe"
        assert asleep.get("/counter?add=0")["counter"] == counter, "it wakes with everything when there is memory again"
        with run(daemon, probe) as again:
            assert again.get("/")["application"] == "probe"
    agree(daemon)
