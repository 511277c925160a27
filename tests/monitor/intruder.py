"""Whoever has taken over the monitor: makes a running process execute system calls of our choice, by ptrace from outside.

The kernel sees the calls as the process's own: its filter, its user, its namespaces apply, as they would to an intruder's code.
"""
import ctypes
import os
import signal
import time

ATTACH, DETACH, GETREGS, SETREGS, SINGLESTEP = 16, 17, 12, 13, 9
ERRNO_MAX = 4095
# Threads that are not the first of their process.
WALL = 0x4000_0000
STOPS_WITHIN = 30


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86_64."""
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs").split()]


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, pid, data=None):
    ctypes.set_errno(0)
    if LIBC.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


class Killed(Exception):
    """The kernel ended the process for the call."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Intruder:
    """A process, or one of its threads, that waits in a system call, held."""

    def __init__(self, pid):
        self.pid = pid
        ptrace(ATTACH, pid)
        self.wait()
        self.before = Registers()
        ptrace(GETREGS, pid, ctypes.byref(self.before))
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(self.before.rip - 2)
            # The instruction that it waits in is the one that is executed again.
            assert memory.read(2) == b"\x0f\x05", "the process is not within a system call"

    @property
    def stack(self):
        """An address that the process may read and write, below what it uses."""
        return self.before.rsp - 4096

    def wait(self):
        """The next thing that becomes of it, within a deadline: a test that hangs says nothing."""
        deadline = time.monotonic() + STOPS_WITHIN
        while True:
            pid, status = os.waitpid(self.pid, WALL | os.WNOHANG)
            if pid:
                return status
            assert time.monotonic() < deadline, "the process neither stops nor ends"
            time.sleep(0.001)

    def call(self, number, *arguments):
        """The call's result, negative for an error; raises Killed."""
        registers = Registers.from_buffer_copy(self.before)
        registers.rip -= 2
        registers.rax = number
        # Not within a call any more, so that none is started again.
        registers.orig_rax = 2**64 - 1
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), [*arguments, 0, 0, 0, 0, 0, 0]):
            setattr(registers, name, value % 2**64)
        ptrace(SETREGS, self.pid, ctypes.byref(registers))
        ptrace(SINGLESTEP, self.pid)
        status = self.wait()
        if os.WIFSIGNALED(status):
            raise Killed(os.WTERMSIG(status))
        assert os.WIFSTOPPED(status), status
        if os.WSTOPSIG(status) != signal.SIGTRAP:
            raise Killed(os.WSTOPSIG(status))
        ptrace(GETREGS, self.pid, ctypes.byref(registers))
        result = registers.rax
        return result - 2**64 if result > 2**64 - ERRNO_MAX else result
