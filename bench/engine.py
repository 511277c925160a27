#!/usr/bin/env python3
"""What an engine costs where the CPU has virtualization, in the lab (docs/lab.md) or on a host that has it:  make bench SUITE=engine

restore.<engine>       from the start of the process to the agent's first answer: the steps process, restore and guest of a launch without hooks
step.<engine>.<step>   each step of those launches
suspend.<engine>       SuspendMicrovm called -> SUSPENDED is seen; the guest has dirtied 16 MiB since it was last written
snapshot.<engine>      the step that writes it
clones_per_second.<engine>  so many launched at once, until the last is RUNNING
overhead_kib.<engine>  PSS of each of six monitors alive, mappings of guest memory left out

In the lab everything is emulated: only ratios of one run mean anything. EMBERBOX_BENCH_REPETITIONS (10) changes how often.
"""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common.report import Progress, Report, Samples
from common.watching import milliseconds_since, say_where, steps_of, wait_for
from support import paths
from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import launch

REPETITIONS = int(os.environ.get("EMBERBOX_BENCH_REPETITIONS", 10))
ALIVE = 6
DIRTIED_MIB = 16
RESTORE = ("process", "restore", "guest")
LAB_MEMORY_MIB = 6144


def in_the_lab():
    """Runs this there, and keeps what it leaves."""
    bench = paths.CARGO_TARGET / "bench"
    xtask = paths.require(paths.CARGO_TARGET / "release/xtask", "run `make build`")
    command = [xtask, "lab", "--memory", str(LAB_MEMORY_MIB), "--deadline", "3600", "--out", bench, "--env", "PYTHONPATH=tests", "--env",
               f"EMBERBOX_BENCH_REPETITIONS={REPETITIONS}", "--", "/opt/venv/bin/python", "bench/engine.py"]
    return subprocess.run(command).returncode


class Bench:
    def __init__(self, daemon):
        self.daemon, self.samples = daemon, Samples()
        [identity] = [event["identity"] for event in daemon.events() if event.get("message") == "engine chosen"]
        # The name is the first of what identifies an engine: qemu-kvm and qemu-tcg are one engine.
        self.engine = identity.split('"')[1].removesuffix("-kvm").removesuffix("-tcg")
        self.image = Images(daemon).probe("bench", hooks=hooks(("ready",))).built()

    def name(self, what, *rest):
        return ".".join([what, self.engine, *rest])

    def steps_since(self, start, operation):
        ended = [event for event in self.daemon.events(start) if event.get("message") == "host call ended" and event.get("operation") == operation]
        return [{name: ms for name, ms, _ in steps_of(event)} for event in ended]

    def measure_restores(self):
        start, done = self.daemon.log.stat().st_size, Progress("launches, one at a time", REPETITIONS)
        for _ in range(REPETITIONS):
            with launch(self.daemon, self.image) as microvm:
                wait_for(microvm, "RUNNING")
            done()
        for steps in self.steps_since(start, "launch"):
            self.samples[self.name("restore")].append(sum(steps[step] for step in RESTORE))
            for step, ms in steps.items():
                self.samples[self.name("step", step)].append(ms)

    def measure_suspensions(self):
        start, done = self.daemon.log.stat().st_size, Progress(f"suspensions of a guest that dirtied {DIRTIED_MIB} MiB", REPETITIONS)
        with launch(self.daemon, self.image) as microvm:
            wait_for(microvm, "RUNNING")
            for _ in range(REPETITIONS):
                microvm.get(f"/touch?mib={DIRTIED_MIB}")
                began = time.perf_counter()
                microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
                wait_for(microvm, "SUSPENDED")
                self.samples[self.name("suspend")].append(milliseconds_since(began))
                microvm.resume()
                done()
        for steps in self.steps_since(start, "suspend"):
            for step, ms in steps.items():
                self.samples[self.name("suspend", step)].append(ms)

    def measure_many(self):
        microvms = []
        try:
            began = time.perf_counter()
            microvms = [launch(self.daemon, self.image) for _ in range(ALIVE)]
            for microvm in microvms:
                wait_for(microvm, "RUNNING")
            self.samples[self.name("clones_per_second")].append(ALIVE / (time.perf_counter() - began))
            for microvm in microvms:
                self.samples[self.name("overhead_kib")].append(overhead_kib(microvm.process()))
        finally:
            for microvm in microvms:
                microvm.terminate()


def overhead_kib(pid):
    """PSS of everything but guest memory, which is the mapping of a snapshot's memory file."""
    kib, is_guest, guest_mappings = 0, False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_guest = "/memory" in line
            guest_mappings += is_guest
        elif first == "Pss:" and not is_guest:
            kib += int(rest[0])
    assert guest_mappings, f"process {pid} maps no snapshot's memory: what would be measured is not what is meant"
    return kib


def main():
    if not os.environ.get("EMBERBOX_LAB") and not (os.access("/dev/kvm", os.R_OK | os.W_OK)):
        return in_the_lab()
    daemon, failed = Daemon().start(), True
    try:
        bench = Bench(daemon)
        say_where(daemon)
        bench.measure_restores()
        bench.measure_suspensions()
        bench.measure_many()
        report = Report("engine", "milliseconds unless the name says otherwise")
        report.write(bench.samples)
        failed = False
    finally:
        daemon.end(failed)
    if out := os.environ.get("EMBERBOX_LAB_OUT"):
        Path(out).mkdir(exist_ok=True)
        shutil.copy(report.path, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
