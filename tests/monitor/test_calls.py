"""The lists of system calls (crates/vmm/src/jail/seccomp.rs) against what the monitor does: traced while it boots, talks, is suspended, saved and restored, and
while a malicious guest makes its devices do everything they can. A kind of thread that makes a call outside of its list is ended by the kernel; this test
is about the other direction: whatever is on a list and was not used has a reason here, or has no business on the list."""
import collections
import contextlib
import os
import re
import signal
import time

import pytest

from monitor import driver
from monitor.driver import Monitor, overlay

pytestmark = driver.NEEDS_KVM

SOURCE = driver.ROOT / "crates/vmm/src/jail/seccomp.rs"
MAIN, VCPU, DEVICE = "main", "vcpu", "device"
LISTS = {MAIN: ("COMMON", "DEVICE", "MAIN"), VCPU: ("COMMON", "START"), DEVICE: ("COMMON", "DEVICE", "START")}
# Rules that are made in code.
BESIDES = {MAIN: {"ioctl", "mmap", "mprotect", "clone", "io_uring_register", "io_uring_enter"}, VCPU: {"ioctl", "mmap", "mprotect"}, DEVICE: {"mmap", "mprotect", "io_uring_enter"}}

# Allowed to all, used by none of them in these stories, and why it stays.
KEPT = {
    "how a thread, or the process, ends": {"exit", "exit_group"},
    "the allocator grows, shrinks, waits": {"brk", "munmap", "mremap", "madvise", "mmap", "mprotect", "sched_yield", "futex"},
    "Rust's runtime and glibc around signals and threads": {
        "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "restart_syscall", "sched_getaffinity", "getpid", "gettid", "tgkill", "set_robust_list",
        "rseq", "prctl", "clone3", "seccomp", "prlimit64"},
    "where the vDSO has no clock, or a thread rests": {"clock_gettime", "clock_nanosleep"},
    "the log, bells and lines": {"read", "write", "close"},
    "random numbers: the generation, the generator, hash maps": {"getrandom"},
    "disks, whichever of these their files take; a main thread settles them": {
        "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "fallocate", "ftruncate", "fsync", "fdatasync", "fstat",
        "fstatfs", "statx"},
    "KVM and the tap: not traced": {"ioctl"},
    "reads of a disk under way together, on its thread; a thread's list is part of the process's": {"io_uring_enter"},
    "waiting, in the form that glibc has": {"epoll_wait", "epoll_pwait", "poll", "ppoll"},
    "control, in the form that Rust has": {"sendto", "sendmsg", "setsockopt", "fcntl", "accept4", "recvmsg", "eventfd2", "epoll_create1", "epoll_ctl"},
}


def lists():
    source = SOURCE.read_text()

    def named(name):
        body = re.search(rf"^const {name}: &\[i64\] = &\[(.*?)\];", source, re.M | re.S)[1]
        return set(re.findall(r"SYS_(\w+)", body))

    return {kind: set().union(*map(named, names)) | BESIDES[kind] for kind, names in LISTS.items()}


def calls(trace):
    """By kind of thread, once it has confined itself."""
    kinds, confined, made = collections.defaultdict(lambda: MAIN), set(), collections.defaultdict(collections.Counter)
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if not match:
            continue
        thread, call, rest = match.groups()
        if call == "prctl" and "PR_SET_NAME" in rest:
            kinds[thread] = VCPU if '"vcpu' in rest else DEVICE
        elif call == "seccomp" and "SECCOMP_SET_MODE_FILTER" in rest:
            confined.add(thread)
        elif thread in confined:
            made[kinds[thread]][call] += 1
    return made


@contextlib.contextmanager
def traced(work, name, **options):
    """A monitor under strace. Without its ioctls, which are most of what it does: the kernel alone sees to those, and a guest would hardly get anywhere."""
    wrapper = ("strace", "-f", "--seccomp-bpf", "-e", "trace=!ioctl", "-qq", "--kill-on-exit", "-s", "32", "-o", str(work / name))
    machine = Monitor(work, wrapper=wrapper, **options)
    try:
        yield machine
    finally:
        # The monitor first: its tracer then writes down the rest and ends by itself.
        tracer = machine.process.pid
        with contextlib.suppress(FileNotFoundError):
            for child in open(f"/proc/{tracer}/task/{tracer}/children").read().split():
                os.kill(int(child), signal.SIGKILL)
        machine.process.wait(60)
        machine.end()


def test_every_call_on_a_list_is_used_or_has_a_reason(tmp_path, hostile_initramfs):
    driver.enter_network()
    traces = [story(tmp_path) for story in (boots_and_is_suspended, is_restored)]
    traces.append(is_attacked(tmp_path, hostile_initramfs))
    made = collections.defaultdict(collections.Counter)
    for trace in traces:
        assert "SIGSYS" not in trace.read_text(errors="replace")
        for kind, counted in calls(trace).items():
            made[kind].update(counted)
    kept = set().union(*KEPT.values())
    for kind, allowed in lists().items():
        unused = allowed - set(made[kind])
        print(f"{kind}: used {dict(made[kind].most_common())}\n  allowed and not used: {', '.join(sorted(unused))}")
        assert set(made[kind]) - {"clone3"} <= allowed, "the trace is misread: this call would have ended the process"
        assert unused <= kept, f"{kind}: {sorted(unused - kept)} is on the list, and nothing uses it"
        assert len(made[kind]) >= 2, f"the story of {kind} is too short to prove anything"


def boots_and_is_suspended(work):
    with traced(work, "boots") as machine:
        machine.call({"prepare": {"vcpus": 1}})
        machine.boot(overlay(work, work), work / "memory", memory=256)
        assert machine.ask("ping") == "done"
        machine.call({"balloon": {"pages": 1024}})
        machine.reconnect()
        machine.call("pause")
        machine.call("resume")
        machine.call("stats")
        # What is restored: it must not run on.
        machine.call("pause")
        machine.save_state(work / "state")
    return work / "boots"


def is_restored(work):
    with traced(work, "restored") as machine:
        machine.restore(overlay(work, work), work / "memory", work / "state", memory=256)
        assert machine.ask("ping") == "done"
    return work / "restored"


def is_attacked(work, initramfs):
    own = work / "attacked"
    own.mkdir()
    with traced(own, "calls", tap="tap1") as machine:
        machine.boot(overlay(own, own), own / "memory", memory=256, extra="hostile.seed=4 hostile.seconds=1", initramfs=initramfs)
        deadline = time.monotonic() + 120
        while "hostile: done" not in machine.console() and machine.process.poll() is None:
            assert time.monotonic() < deadline, machine.said()
            time.sleep(0.2)
    return own / "calls"
