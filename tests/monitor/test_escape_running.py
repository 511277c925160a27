"""Escapes from the jail of a monitor whose guest runs, by each kind of thread that it has then: what the process may not do, none of them may, and each may less
than the process. `test_escape.py` has the whole list of calls, for the process."""
import os
import signal
import time

import pytest

from monitor import driver
from monitor.driver import clone
from monitor.intruder import Intruder, Killed
from monitor.test_escape import FATAL, STACK

pytestmark = driver.NEEDS_KVM

OF_ALL = ("openat", "execve", "clone of a process", "socket", "mmap of memory as code")
CREATE_VM, RUN, CREATE_VCPU = 0xAE01, 0xAE80, 0xAE41
# What the main thread may, and this kind may not.
OF_ITSELF = {
    "vcpu0": {"read at an offset": (17, 0, STACK, 1, 0), "take descriptors": (47, 3, STACK, 0), "make a VM": (16, 4, CREATE_VM, 0), "make a thread": (56, 0x10000),
              "give a page of a file back": (285, 0, 3, 0, 4096)},
    "disk": {"run a vCPU": (16, 4, RUN, 0), "take descriptors": (47, 3, STACK, 0), "make a vCPU": (16, 4, CREATE_VCPU, 0), "make a thread": (56, 0x10000)},
    "devices": {"run a vCPU": (16, 4, RUN, 0), "accept a connection": (288, 3, 0, 0, 0), "change a limit": (302, 0, 7, STACK, 0)},
}
CASES = [(thread, name, FATAL[name]) for thread in OF_ITSELF for name in OF_ALL]
CASES += [(thread, name, call) for thread, own in OF_ITSELF.items() for name, call in own.items()]


def thread_of(machine, name):
    tasks = f"/proc/{machine.process.pid}/task"
    return next(int(task) for task in os.listdir(tasks) if open(f"{tasks}/{task}/comm").read().strip() == name)


@pytest.mark.parametrize("thread, name, call", CASES, ids=[f"{thread}-{name}" for thread, name, _ in CASES])
def test_a_thread_of_a_running_machine_is_ended_for_a_forbidden_call(frozen, tmp_path, thread, name, call):
    machine = clone(frozen, tmp_path)
    try:
        intruder = at_rest(machine, thread)
        assert intruder.call(39) == machine.process.pid, "getpid, which every thread may"
        number, *arguments = call
        with pytest.raises(Killed, match="SIGSYS"):
            result = intruder.call(number, *[intruder.stack if argument == STACK else argument for argument in arguments])
            pytest.fail(f"{name} answered {result}")
    finally:
        machine.end()


def at_rest(machine, thread):
    """The thread, held when it waits in the kernel, as all of them do most of the time."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return Intruder(thread_of(machine, thread))
        except (AssertionError, StopIteration):
            assert time.monotonic() < deadline, f"{thread} never waits"
            time.sleep(0.05)


def test_the_process_of_a_running_machine_is_ended_too(frozen, tmp_path):
    machine = clone(frozen, tmp_path)
    intruder = at_rest(machine, "emberbox-vmm")
    with pytest.raises(Killed, match="SIGSYS"):
        intruder.call(*[intruder.stack if argument == STACK else argument for argument in FATAL["openat"]])
    machine.end()
    assert machine.process.returncode in (-signal.SIGSYS, -signal.SIGKILL)
