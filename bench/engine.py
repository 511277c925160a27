#!/usr/bin/env python3
"""What the engines cost where the CPU has virtualization, against each other, in the lab (docs/lab.md) or on a host that has it:  make bench SUITE=engine

restore.<engine>       from the start of the process to the agent's first answer, of a launch without hooks: all its steps but those that name the cell and files.
                       kvm_pooled finds a monitor that stands ready, kvm starts one, kvm_faulting is kvm_pooled without a working set: what that
                       saves
runs.<engine>          of that, what the engine takes: until the guest runs. The rest is the guest's own work, which under emulation is most of it
step.<engine>.<step>   each step of those launches
suspend.<engine>       SuspendMicrovm called -> it is SUSPENDED, of a clone that has dirtied 16 MiB
suspend.<engine>.<step>  its steps
snapshot.<engine>      of that, while the guest stands still: from its pause to a snapshot that is whole, synced and has its name
write_memory           a file as large as the guest's memory, written and synced on the same disk: what a snapshot of everything could not do without
clones_per_second.<engine>  so many launched at once, until the last is RUNNING
overhead_kib.<engine>  PSS of each of six monitors alive, mappings of guest memory left out
block_*, net_*         disk and network: common/io.py
restore_of_mib.*       with so much memory: common/memory.py

In the lab everything is emulated: only ratios of one run mean anything. It has one CPU, which this process leaves to whom it measures: common/quiet.py.
EMBERBOX_BENCH_REPETITIONS (10) changes how often, EMBERBOX_BENCH_PARTS=io, =launches or =memory measures one part alone; =restores is launches without
suspensions, and fails where the own monitor has fallen far behind its aims (tests/suites/engine comparison).
"""
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import io, memory
from common.chart import chart
from common.quiet import Events
from common.report import Progress, Report, Samples
from common.watching import milliseconds_since, say_where, steps_of
from support import paths
from support.daemon import Daemon
from support.faults import single_pages
from support.images import Images, hooks
from support.microvm import launch

REPETITIONS = int(os.environ.get("EMBERBOX_BENCH_REPETITIONS", 10))
PARTS = os.environ.get("EMBERBOX_BENCH_PARTS", "launches,io,memory").split(",")
# Without suspensions, and with as few bursts as say anything.
RESTORES_ALONE = "launches" not in PARTS
ALIVE, BURSTS = 6, 1 if RESTORES_ALONE else 5
# Seconds for the pool of cells and monitors to fill itself again.
SETTLES_WITHIN, SETTLES_AFTER_MANY_WITHIN = 2, 6
DIRTIED_MIB = 16
# Steps of a launch before and after the restore.
APART = ("manifest", "disk", "cell", "record")
# Steps that are the guest's.
GUESTS = ("guest", "clock")
# Steps of a suspension while the guest stands still.
SNAPSHOTS = ("pause", "memory_and_state", "sync")
MEMORY_MIB = 512
# What a guest of that has: its peak.
GUEST_MEMORY_MIB = 4 * MEMORY_MIB
LAB_MEMORY_MIB = 6144
MOST_OVERHEAD_KIB = 1500
# How many times as fast the own monitor is to be.
RESTORE_AIMS = [("restore.qemu", "restore.kvm", 4), ("restore.qemu", "restore.kvm_pooled", 8)]


def in_the_lab():
    """Runs this there, and keeps what it leaves."""
    bench = paths.CARGO_TARGET / "bench"
    xtask = paths.require(paths.CARGO_TARGET / "release/xtask", "run `make build`")
    command = [xtask, "lab", "--memory", str(LAB_MEMORY_MIB), "--deadline", "3600", "--out", bench, "--env", "PYTHONPATH=tests", "--env",
               f"EMBERBOX_BENCH_REPETITIONS={REPETITIONS}", "--env", f"EMBERBOX_BENCH_PARTS={','.join(PARTS)}", "--", "/opt/venv/bin/python", "bench/engine.py"]
    return subprocess.run(command).returncode


class Bench:
    """One engine under one name, with one image."""

    def __init__(self, samples, name, daemon, image):
        self.samples, self.engine, self.daemon, self.image = samples, name, daemon, image

    def name(self, what, *rest):
        return ".".join([what, self.engine, *rest])

    def steps_since(self, start, operation):
        ended = [event for event in self.daemon.events(start) if event.get("message") == "host call ended" and event.get("operation") == operation]
        return [{name: ms for name, ms, whose in steps_of(event) if whose == "host"} for event in ended]

    def launched(self):
        """A MicroVM that runs."""
        with Events(self.daemon).before_the_answer(self.daemon.microvms, "RUNNING"):
            return launch(self.daemon, self.image)

    def measure_restores(self):
        start, done = self.daemon.log.stat().st_size, Progress(f"{self.engine}: launches, one at a time", REPETITIONS)
        for _ in range(REPETITIONS):
            self.launched().terminate()
            # The pool fills itself again.
            time.sleep(SETTLES_WITHIN)
            done()
        for steps in self.steps_since(start, "launch"):
            restore = {step: ms for step, ms in steps.items() if step not in APART}
            self.samples[self.name("restore")].append(sum(restore.values()))
            self.samples[self.name("runs")].append(sum(ms for step, ms in restore.items() if step not in GUESTS))
            for step, ms in steps.items():
                self.samples[self.name("step", step)].append(ms)

    def measure_suspensions(self):
        start, done = self.daemon.log.stat().st_size, Progress(f"{self.engine}: suspensions of a guest that dirtied {DIRTIED_MIB} MiB", REPETITIONS)
        for _ in range(REPETITIONS):
            # A new one each time: a snapshot has all that its clone has written since the image, not since the last snapshot alone.
            with self.launched() as microvm:
                microvm.get(f"/touch?mib={DIRTIED_MIB}")
                events, began = Events(self.daemon), time.time()
                with events.before_the_answer(microvm.client, "SUSPENDED"):
                    microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
                self.samples[self.name("suspend")].append((events.entered("SUSPENDED") - began) * 1000)
            done()
        for steps in self.steps_since(start, "suspend"):
            self.samples[self.name("snapshot")].append(sum(steps[step] for step in SNAPSHOTS))
            for step, ms in steps.items():
                self.samples[self.name("suspend", step)].append(ms)

    def measure_many(self):
        done = Progress(f"{self.engine}: {ALIVE} launches at once", BURSTS)
        for _ in range(BURSTS):
            time.sleep(SETTLES_AFTER_MANY_WITHIN)
            microvms, events = [], Events(self.daemon)
            try:
                began = time.time()
                microvms = [launch(self.daemon, self.image) for _ in range(ALIVE)]
                last = max(events.entered("RUNNING", microvm.id) for microvm in microvms)
                self.samples[self.name("clones_per_second")].append(ALIVE / (last - began))
                for microvm in microvms:
                    self.samples[self.name("overhead_kib")].append(overhead_kib(microvm.process()))
            finally:
                for microvm in microvms:
                    microvm.terminate()
            done()


def measure_writing(samples, directory):
    """Pieces that are not all zero and not in any cache of the processor."""
    pieces, path = [os.urandom(1 << 20) for _ in range(16)], directory / "memory-whole"
    done = Progress(f"{GUEST_MEMORY_MIB} MiB written and synced", REPETITIONS)
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        with open(path, "wb") as file:
            for number in range(GUEST_MEMORY_MIB):
                file.write(pieces[number % len(pieces)])
            file.flush()
            os.fsync(file.fileno())
        samples["write_memory"].append(milliseconds_since(began))
        path.unlink()
        done()


def charts(samples, engines):
    """The launches of each engine, step by step, by their medians."""
    for engine in engines:
        prefix = f"step.{engine}."
        steps = [(name.removeprefix(prefix), samples.p(name, 0.5)) for name in samples if name.startswith(prefix)]
        yield from chart(f"a launch, {engine}", [step for step in steps if len(samples[prefix + step[0]]) >= REPETITIONS / 2])
        yield ""


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


def configuration(kind, pool=4, working_set=True, io_uring=True):
    switches = f"snapshot.working_set = {working_set}\nengine.io_uring = {io_uring}\n".lower()
    return f'engine.kind = "{kind}"\nnetwork.pool = {pool}\n{switches}'


def image(daemon, memory_mib):
    with single_pages():
        return Images(daemon).probe("bench", {"PROBE_SAMPLER": "off"}, hooks=hooks(("ready",)), resources=[{"minimumMemoryInMiB": memory_mib}]).built()


def measure_kvm(samples):
    with Daemon(config=configuration("kvm"), failpoints=False).serving() as daemon:
        say_where(daemon)
        small = image(daemon, MEMORY_MIB)
        pooled = Bench(samples, "kvm_pooled", daemon, small)
        pooled.measure_restores()
        pooled.measure_many()
        if not RESTORES_ALONE:
            Bench(samples, "kvm", daemon, small).measure_suspensions()
            measure_writing(samples, daemon.directory)
            daemon.config.write_text(configuration("kvm", working_set=False))
            daemon.restart("stop")
            Bench(samples, "kvm_faulting", daemon, small).measure_restores()
        daemon.config.write_text(configuration("kvm", pool=0))
        daemon.restart("stop")
        alone = Bench(samples, "kvm", daemon, small)
        alone.measure_restores()
        alone.measure_many()


def measure_qemu(samples):
    with Daemon(config=configuration("qemu-kvm"), failpoints=False).serving() as daemon:
        say_where(daemon)
        bench = Bench(samples, "qemu", daemon, image(daemon, MEMORY_MIB))
        bench.measure_restores()
        bench.measure_many()
        if not RESTORES_ALONE:
            bench.measure_suspensions()


def fallen_behind(samples):
    """What is so far from its aim that chance does not explain it: less than half of it is left."""
    for slower, faster, aim in RESTORE_AIMS:
        if samples.p(slower, 0.5) < aim / 2 * samples.p(faster, 0.5):
            yield f"{faster} is not {aim / 2:g} times as fast as {slower}"
    if samples.p("overhead_kib.kvm_pooled", 0.5) > MOST_OVERHEAD_KIB:
        yield f"a monitor takes more than {MOST_OVERHEAD_KIB} KiB of its own"


def measure_io(samples):
    """All at once, for they take turns; kvm_alone has no io_uring: a disk's reads come one after the other."""
    configurations = {"kvm": configuration("kvm"), "kvm_alone": configuration("kvm", io_uring=False), "qemu": configuration("qemu-kvm")}
    with contextlib.ExitStack() as stack:
        # On a disk's file system: that of /tmp may be memory's, which reads in other ways.
        directories = {engine: stack.enter_context(tempfile.TemporaryDirectory(prefix="emberbox-bench-", dir="/var/tmp")) for engine in configurations}
        daemons = {engine: stack.enter_context(Daemon(Path(directories[engine]), text, failpoints=False).serving()) for engine, text in configurations.items()}
        # One build after the other: what is emulated has one CPU.
        images = {engine: (daemon, io.image(daemon).built()) for engine, daemon in daemons.items()}
        io.measure(samples, images, REPETITIONS)


def main():
    # The device alone proves nothing: there are some that run no stock kernel.
    if not {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()):
        return in_the_lab()
    samples = Samples()
    if "launches" in PARTS or "restores" in PARTS:
        measure_kvm(samples)
        measure_qemu(samples)
    if "io" in PARTS:
        measure_io(samples)
    # Last: it leaves this network.
    if "memory" in PARTS:
        memory.measure(samples, REPETITIONS)
    report = Report("engine", "milliseconds unless the name says otherwise", targets={"overhead_kib.kvm_pooled": MOST_OVERHEAD_KIB}, ratios=[
        *((slower, faster, aim, ">=") for slower, faster, aim in RESTORE_AIMS),
        (memory.key(8192), memory.key(256), None, "<="),
        ("write_memory", "snapshot.kvm", 10, ">="),
        ("restore.kvm_faulting", "restore.kvm_pooled", None, ">="),
        ("runs.qemu", "runs.kvm", None, ">="),
        ("runs.qemu", "runs.kvm_pooled", None, ">="),
        ("overhead_kib.qemu", "overhead_kib.kvm_pooled", None, ">="),
        *((f"{name}.kvm", f"{name}.qemu", 1, ">=") for name in io.NAMES),
        *((f"{name}.kvm", f"{name}.kvm_alone", None, ">=") for name in io.READS),
    ])
    report.write(samples)
    drawn = report.path.with_name("engine-launches.txt")
    drawn.write_text("\n".join(charts(samples, ("kvm_pooled", "kvm", "qemu"))))
    print(drawn.read_text())
    if out := os.environ.get("EMBERBOX_LAB_OUT"):
        Path(out).mkdir(exist_ok=True)
        for path in (report.path, drawn):
            shutil.copy(path, out)
    behind = list(fallen_behind(samples)) if "restores" in PARTS else []
    for what in behind:
        print(f"{what}: see the steps above, and docs/engine.md for what they were", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
