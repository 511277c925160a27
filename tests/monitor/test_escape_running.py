"""Escapes from the jail of a monitor whose machine runs, by each kind of thread that it has then: what the process may not do, none of them may, and each may less
than the process. `test_escape.py` has the whole list of calls, for the process.

The machine's kernel is three instructions, which halt: what a thread may do does not depend on what the guest does, and a call ends the process, so that each
case needs a monitor of its own."""
import os
import re
import signal
import struct
import time

import pytest

from monitor import driver
from monitor.driver import Monitor
from monitor.intruder import Intruder, Killed
from monitor.test_escape import FATAL, STACK

pytestmark = driver.NEEDS_KVM

OF_ALL = ("openat", "execve", "clone of a process", "socket", "mmap of memory as code")
CREATE_VM, RUN, CREATE_VCPU = 0xAE01, 0xAE80, 0xAE41
PROCESS = "emberbox-vmm"
# What the main thread may, and this kind may not.
OF_ITSELF = {
    "vcpu0": {"read at an offset": (17, 0, STACK, 1, 0), "take descriptors": (47, 3, STACK, 0), "make a VM": (16, 4, CREATE_VM, 0), "make a thread": (56, 0x10000),
              "give a page of a file back": (285, 0, 3, 0, 4096)},
    "disk": {"run a vCPU": (16, 4, RUN, 0), "take descriptors": (47, 3, STACK, 0), "make a vCPU": (16, 4, CREATE_VCPU, 0), "make a thread": (56, 0x10000)},
    "devices": {"run a vCPU": (16, 4, RUN, 0), "accept a connection": (288, 3, 0, 0, 0), "change a limit": (302, 0, 7, STACK, 0)},
}
CASES = [(thread, name, FATAL[name]) for thread in (PROCESS, *OF_ITSELF) for name in OF_ALL]
CASES += [(thread, name, call) for thread, own in OF_ITSELF.items() for name, call in own.items()]


@pytest.fixture(scope="module")
def halting(tmp_path_factory):
    """A bzImage (kernel: Documentation/arch/x86/boot.rst) whose 64-bit entry halts with interrupts off, and a disk."""
    driver.enter_network()
    header = bytearray(1024)
    header[0x1F1] = 1
    for at, kind, value in ((0x1FE, "H", 0xAA55), (0x202, "4s", b"HdrS"), (0x206, "H", 0x20F), (0x211, "B", 1), (0x214, "I", 1 << 20), (0x22C, "I", 0x7FFFFFFF),
                            (0x236, "H", 1)):
        struct.pack_into(f"<{kind}", header, at, value)
    work = tmp_path_factory.mktemp("halting")
    # cli; hlt; jmp to hlt
    (work / "kernel").write_bytes((header + bytes(0x200) + b"\xfa\xf4\xeb\xfd").ljust(8192, b"\0"))
    (work / "raw").write_bytes(bytes(1 << 20))
    return work


@pytest.fixture
def machine(halting, tmp_path):
    machine = Monitor(tmp_path)
    try:
        disks = {"root": (False, [("raw", halting / "raw")])}
        machine.boot(disks, tmp_path / "memory", memory=128, kernel=halting / "kernel", initramfs="/dev/null")
        yield machine
    finally:
        machine.end()


def threads(machine, name):
    """Those of a name, which each gives itself."""
    tasks = f"/proc/{machine.process.pid}/task"
    return [int(task) for task in os.listdir(tasks) if open(f"{tasks}/{task}/comm").read().strip() == name]


def at_rest(machine, thread):
    """The thread, held when it waits in the kernel, as all of them do here once they have begun."""
    pid, deadline = machine.process.pid, time.monotonic() + 20
    while not (found := [tid for tid in threads(machine, thread) if waits(pid, tid)]):
        assert time.monotonic() < deadline, f"{thread} never waits"
        time.sleep(0.01)
    return Intruder(found[0])


def waits(pid, tid):
    """Asleep, and confined by more than the process's filters: by that of its kind."""
    status, of_process = (open(f"/proc/{pid}/task/{task}/status").read() for task in (tid, pid))
    return "State:\tS" in status and filters(status) > (0 if tid == pid else filters(of_process))


def filters(status):
    return int(re.search(r"^Seccomp_filters:\t(\d+)$", status, re.M)[1])


@pytest.mark.parametrize("thread, name, call", CASES, ids=[f"{thread}-{name}" for thread, name, _ in CASES])
def test_a_thread_of_a_running_machine_is_ended_for_a_forbidden_call(machine, thread, name, call):
    intruder = at_rest(machine, thread)
    assert intruder.call(39) == machine.process.pid, "getpid, which every thread may"
    number, *arguments = call
    with pytest.raises(Killed, match="SIGSYS"):
        result = intruder.call(number, *[intruder.stack if argument == STACK else argument for argument in arguments])
        pytest.fail(f"{name} answered {result}")
    if thread != PROCESS:
        assert machine.process.wait(20) == -signal.SIGSYS, "the whole process, not the thread alone"
