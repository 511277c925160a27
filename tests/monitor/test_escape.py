"""Escapes from the jail, as if the monitor had been taken over: each call is made by a monitor's own process. Needs root, and no virtualization: the jail
is complete before there is a machine, and what stands for /dev/kvm refuses everything."""
import errno
import os
import signal
import subprocess
import time

import pytest

from monitor.driver import Monitor
from monitor.intruder import Intruder, Killed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CLONE_THREAD, CLONE_VM, CLONE_SIGHAND, CLONE_NEWUSER = 0x10000, 0x100, 0x800, 0x10000000
AT_FDCWD, STACK = -100, "stack"
PROT_EXEC, PROT_WRITE, PROT_READ, MAP_PRIVATE, MAP_ANONYMOUS = 4, 2, 1, 2, 0x20
# Name: (number on x86_64, arguments). All of them end the process, whatever the arguments are.
FATAL = {
    "open": (2, STACK), "openat": (257, AT_FDCWD, STACK), "openat2": (437, AT_FDCWD, STACK, STACK, 24), "creat": (85, STACK),
    "open_by_handle_at": (304, 3, STACK), "memfd_create": (319, STACK), "readlink": (89, STACK, STACK, 10), "unlink": (87, STACK), "rename": (82, STACK, STACK),
    "mknod": (133, STACK), "chmod": (90, STACK), "execve": (59, STACK, 0, 0), "execveat": (322, 3, STACK, 0, 0, 0x1000), "fork": (57,), "vfork": (58,),
    "clone of a process": (56, signal.SIGCHLD), "clone into a user namespace": (56, CLONE_NEWUSER | signal.SIGCHLD), "unshare": (272, CLONE_NEWUSER),
    "setns": (308, 3), "socket": (41, 2, 1), "socketpair": (53, 1, 1, 0, STACK), "connect": (42, 3, STACK, 16), "bind": (49, 3, STACK, 16),
    "ptrace": (101, 16, 1), "process_vm_readv": (310, 1, STACK, 1, STACK, 1), "process_vm_writev": (311, 1, STACK, 1, STACK, 1), "pidfd_open": (434, 1),
    "pidfd_getfd": (438, 3, 0), "kill": (62, 1, 9), "mount": (165, STACK, STACK, STACK), "umount2": (166, STACK), "pivot_root": (155, STACK, STACK),
    "chroot": (161, STACK), "chdir": (80, STACK), "setuid": (105, 0), "setresuid": (117, 0, 0, 0), "setgroups": (116, 0, 0), "capset": (126, STACK, STACK),
    "bpf": (321, 0, STACK, 64), "perf_event_open": (298, STACK, 0, -1, -1), "io_uring_setup": (425, 1, STACK), "userfaultfd": (323, 0), "keyctl": (250, 0),
    "add_key": (248, STACK, STACK), "init_module": (175, STACK, 0, STACK), "finit_module": (313, 3, STACK), "kexec_load": (246, 0), "reboot": (169, 0),
    "personality": (135, 0x0040000), "shmget": (29, 0, 4096, 0o1000), "inotify_init": (253,), "fanotify_init": (300, 0),
    "mmap of memory as code": (9, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1),
    "mprotect of memory to code": (10, STACK, 4096, PROT_READ | PROT_WRITE | PROT_EXEC), "modify_ldt": (154, 0), "iopl": (172, 3), "ioperm": (173, 0, 1, 1),
    "io_uring_register IORING_REGISTER_PERSONALITY": (427, 5, 9), "io_uring_register IORING_REGISTER_RESTRICTIONS": (427, 5, 11, STACK, 1),
    "io_uring_enter IORING_ENTER_SQ_WAKEUP": (426, 5, 0, 0, 2),
    "ioctl TIOCSTI": (16, 2, 0x5412, STACK), "ioctl KVM_ENABLE_CAP": (16, 4, 0x4068AEA3, STACK), "ioctl KVM_SET_PMU_EVENT_FILTER": (16, 4, 0x4020AEB2, STACK),
    "ioctl KVM_MEMORY_ENCRYPT_OP": (16, 4, 0xC008AEBA, STACK), "ioctl KVM_CREATE_DEVICE": (16, 4, 0xC00CAEE0, STACK), "an x32 call": (0x40000000 | 2, STACK),
}


@pytest.fixture
def jailed(tmp_path):
    machine = Monitor(tmp_path, device="/dev/null")
    # Confined when it reads its socket: it is asked for something that it answers.
    machine.socket.sendall(b"{}\n")
    machine.socket.recv(65536)
    wait_until_it_waits(machine.process.pid)
    yield machine
    machine.end()


def wait_until_it_waits(pid):
    deadline = time.monotonic() + 20
    while open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "S":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_intruder_can_make_calls(jailed):
    """What is allowed works: else the refusals would prove nothing."""
    intruder = Intruder(jailed.process.pid)
    assert intruder.call(39) == jailed.process.pid, "getpid"
    assert intruder.call(318, intruder.stack, 16) == 16, "getrandom"


@pytest.mark.parametrize("name", FATAL)
def test_a_forbidden_call_ends_the_process(jailed, name):
    intruder = Intruder(jailed.process.pid)
    number, *arguments = FATAL[name]
    with pytest.raises(Killed, match="SIGSYS"):
        result = intruder.call(number, *[intruder.stack if argument == STACK else argument for argument in arguments])
        pytest.fail(f"{name} answered {result}")


@pytest.mark.parametrize("name, number, arguments, refusals", [
    ("a thread by clone3, whose flags no filter sees", 435, [STACK, 88], {errno.ENOSYS}),
    ("a signal to another process", 234, ["other", "other", signal.SIGKILL], {errno.EPERM, errno.ESRCH}),
    ("limits of another process", 302, ["other", 7, STACK, 0], {errno.EPERM, errno.ESRCH}),
])
def test_what_the_list_has_for_itself_reaches_no_other(jailed, name, number, arguments, refusals):
    other = subprocess.Popen(["sleep", "60"])
    try:
        intruder = Intruder(jailed.process.pid)
        given = {STACK: intruder.stack, "other": other.pid}
        result = intruder.call(number, *[given.get(argument, argument) for argument in arguments])
        assert -result in refusals, f"{name}: {result}"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
