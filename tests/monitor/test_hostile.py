"""A malicious guest against the jailed monitor: `tests/apps/hostile` attacks every device (see there), and the monitor carries on, or ends that machine with
its own report. Never a signal, never memory without bound, never silence towards the daemon, and never at a neighbour's expense.

    make guest-programs && cargo xtask lab -- /opt/venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests tests/monitor/test_hostile.py

EMBERBOX_HOSTILE_SEEDS=5,6,7 and EMBERBOX_HOSTILE_SECONDS=60 make other and longer attacks; EMBERBOX_VMM names another build of the monitor. In a process of
its own, for it moves into a network namespace."""
import os
import re
import socket
import subprocess
import time

import pytest

from monitor import driver
from monitor.driver import Monitor

pytestmark = driver.NEEDS_KVM

SEEDS = [int(seed) for seed in os.environ.get("EMBERBOX_HOSTILE_SEEDS", "1,2,3").split(",")]
SECONDS = int(os.environ.get("EMBERBOX_HOSTILE_SECONDS", "5"))
ATTACKS = 8
# Deadlines, not expectations: the machine that this runs on may be emulated itself.
ANSWER_WITHIN, END_WITHIN, LAST_SECONDS = 20, 60, 8
# A monitor's own memory, however its guest behaves. A sanitizer's shadow is not the monitor's.
MOST_KIB = 64 * 1024 if "EMBERBOX_VMM" not in os.environ else 2048 * 1024


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory):
    """An honest guest beside it, whose agent answers."""
    driver.enter_network()
    work = tmp_path_factory.mktemp("neighbour")
    machine = Monitor(work)
    machine.boot({}, work / "memory", memory=256)
    assert machine.ask("ping") == "done"
    yield machine
    machine.end()


class Attack:
    """One hostile machine, watched."""

    def __init__(self, work, initramfs, seed, vcpus):
        self.machine = Monitor(work, uid=driver.UID + 1, tap="tap1")
        self.memory = work / "memory"
        disks = driver.overlay(work, work) | {"read-only": (True, [("raw", work / "raw")])}
        extra = f"hostile.seed={seed} hostile.seconds={SECONDS}"
        self.machine.boot(disks, self.memory, vcpus=vcpus, memory=256, extra=extra, initramfs=initramfs)
        self.frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.frames.bind(("tap1", 0))
        self.slowest, self.largest_kib = 0, 0

    def watch(self, until):
        """Asks for statistics and sends frames until the condition holds or the monitor has ended."""
        assert self.watch_for(END_WITHIN, until), f"no end in sight: {self.attacks()}"

    def watch_for(self, seconds, until):
        """As `watch`, for so long at most. False when nothing has happened."""
        deadline = time.monotonic() + seconds
        while not until() and self.machine.process.poll() is None:
            if time.monotonic() > deadline:
                return False
            self.ask("stats")
            self.largest_kib = max(self.largest_kib, self.own_memory_kib())
            for length in (60, 1514):
                try:
                    self.frames.send(b"\xff" * length, socket.MSG_DONTWAIT)
                except OSError:
                    pass  # The queue is full, or the machine has just ended.
            time.sleep(0.05)
        return True

    def attacks(self):
        """What it has said last, and what the monitor's threads do: hung, dead, or at work."""
        said = [line for line in self.machine.console().splitlines() if "hostile:" in line]
        threads = subprocess.run(["ps", "-L", "-o", "comm,stat,time,wchan:30", "-p", str(self.machine.process.pid)], capture_output=True, text=True).stdout
        return "\n".join([*said[-6:], f"{len(said)} lines", threads, self.machine.said()])

    def ask(self, request):
        began = time.monotonic()
        try:
            self.machine.call(request)
        except (driver.Refused, ConnectionError):
            assert self.machine.process.wait(END_WITHIN) is not None
        self.slowest = max(self.slowest, time.monotonic() - began)

    def own_memory_kib(self):
        """Without the guest's, which is the mapping of its file."""
        guest, total, counted = os.stat(self.memory).st_ino, 0, True
        try:
            lines = open(f"/proc/{self.machine.process.pid}/smaps").read().splitlines()
        except OSError:
            return 0
        for line in lines:
            head = line.split()
            if "-" in head[0]:
                counted = head[4] != str(guest)
            elif head[0] == "Rss:" and counted:
                total += int(head[1])
        return total

    def end(self):
        self.frames.close()
        self.machine.end()


@pytest.mark.parametrize("seed, vcpus", [(seed, 1 + index % 2) for index, seed in enumerate(SEEDS)])
def test_a_malicious_guest_harms_itself_alone(neighbour, hostile_initramfs, tmp_path, seed, vcpus):
    attack = Attack(tmp_path, hostile_initramfs, seed, vcpus)
    machine = attack.machine
    try:
        attack.watch(lambda: "hostile: seed" in machine.console())
        attack.watch(lambda: machine.console().count("hostile: thread") >= 4)
        for request in ("pause", "resume"):
            attack.ask(request)
        assert neighbour.ask("ping", timeout=ANSWER_WITHIN) == "done"
        attack.watch(lambda: "hostile: done" in machine.console())
        # Its kernel may be beyond saying anything.
        attack.watch_for(LAST_SECONDS, lambda: "hostile: still here" in machine.console())
        assert neighbour.ask("ping", timeout=ANSWER_WITHIN) == "done"
        print(f"seed {seed}: slowest answer {attack.slowest:.2f} s, at most {attack.largest_kib} KiB of its own; {made(machine)}")
        report_of_the_end(machine)
        assert attack.slowest < ANSWER_WITHIN
        assert attack.largest_kib < MOST_KIB
        assert "hostile: done" in machine.console(), machine.said()
        assert len(set(re.findall(r"hostile: thread \d: (\D.*)$", machine.console(), re.M))) >= ATTACKS, "not every attack was made"
    finally:
        attack.end()


def made(machine):
    return re.findall(r"made \d+ attacks", machine.console()) + re.findall(r"device of kind \d+ stopped: [^\n]*", machine.report())[-6:]


def report_of_the_end(machine):
    """A guest that has written into its own kernel may have ended the machine, which is then said, or hang."""
    try:
        status = machine.process.wait(1)
    except subprocess.TimeoutExpired:
        status = None
    report = machine.report()
    assert "Sanitizer" not in report, report[report.index("Sanitizer") - 200:][:3000]
    if status is None:
        return
    assert status in (0, 1), f"the monitor ended with {status}: {machine.said()}"
    said = [line for line in report.splitlines() if line.startswith("emberbox-vmm:")]
    assert said and "panicked" not in report and "bug" not in said[-1], machine.said()
