#!/usr/bin/env python3
"""What keeping MicroVMs costs, on the probe:  make bench SUITE=lifecycle

suspend.<size>.dirty<N>        SuspendMicrovm called -> SUSPENDED is seen, asked every 5 ms; the guest has N MiB that its image has not. <size> is the
                               baseline in MiB: the guest has four times as much
wake.<size>.dirty<N>           request to the suspended MicroVM over a new connection -> its 200
written_kib.<size>.dirty<N>    what the snapshot takes on the disk
plain_write.dirty<N>           N MiB written to a file on the same disk and synced: the least that a suspension of so much can take
restart                        start of the daemon's process -> it serves, with SUSPENDED and RUNNING MicroVMs (restart.suspended, restart.running)
recovery                       kill -9 of that daemon -> a running MicroVM answers through a new one
storm_recovery                 start -> it serves, in a storm of clients and deaths
leaks                          what is left of nobody after the storm; storm_deaths says how often the daemon died

EMBERBOX_BENCH_REPETITIONS (3), EMBERBOX_BENCH_SUSPENDED (200), EMBERBOX_BENCH_RUNNING (20), EMBERBOX_STORM_SECONDS (60) change how much.
"""
import os
import time

from common.report import Progress, Report, Samples
from common.watching import disk_kib, milliseconds_since, say_where, wait_for
from support.daemon import Daemon
from support.images import Images
from support.microvm import AUTO_RESUME, launch, run
from support.storm import Storm

REPETITIONS = int(os.environ.get("EMBERBOX_BENCH_REPETITIONS", 3))
SUSPENDED = int(os.environ.get("EMBERBOX_BENCH_SUSPENDED", 200))
RUNNING = int(os.environ.get("EMBERBOX_BENCH_RUNNING", 20))
STORM_SECONDS = float(os.environ.get("EMBERBOX_STORM_SECONDS", 60))
SIZES, DIRTY = (512, 2048), (16, 256, 1024)
# Touched in pieces, so that no request takes minutes under emulation.
PIECE_MIB = 128
RESTARTS = 3


class Bench:
    def __init__(self, daemon):
        self.daemon, self.samples = daemon, Samples()
        images = Images(daemon)
        builds = {size: images.probe(f"size-{size}", resources=[{"minimumMemoryInMiB": size}]) for size in SIZES}
        self.images = {size: build.built() for size, build in builds.items()}

    def measure_suspensions(self):
        done = Progress("suspensions and wakes", len(SIZES) * len(DIRTY) * REPETITIONS)
        for size in SIZES:
            with run(self.daemon, self.images[size], idlePolicy=AUTO_RESUME) as microvm:
                touched = 0
                for dirty in DIRTY:
                    while touched < dirty:
                        piece = min(PIECE_MIB, dirty - touched)
                        microvm.get(f"/touch?mib={piece}", timeout=120)
                        touched += piece
                    for _ in range(REPETITIONS):
                        self.suspend_and_wake(microvm, f"{size}.dirty{dirty}")
                        done()

    def measure_the_disk(self):
        piece, path = os.urandom(1 << 20), self.daemon.directory / "plain"
        for dirty in DIRTY:
            for _ in range(REPETITIONS):
                began = time.perf_counter()
                with open(path, "wb") as file:
                    for _ in range(dirty):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                self.samples[f"plain_write.dirty{dirty}"].append(milliseconds_since(began))
                path.unlink()

    def suspend_and_wake(self, microvm, name):
        began = time.perf_counter()
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        wait_for(microvm, "SUSPENDED")
        self.samples[f"suspend.{name}"].append(milliseconds_since(began))
        self.samples[f"written_kib.{name}"].append(disk_kib(microvm.directory / "snapshot"))
        microvm.session.close()
        began = time.perf_counter()
        assert microvm.request("GET", "/").status_code == 200
        self.samples[f"wake.{name}"].append(milliseconds_since(began))

    def measure_restarts(self):
        image = self.images[SIZES[0]]
        done, microvms = Progress("MicroVMs", SUSPENDED + RUNNING), []
        for number in range(SUSPENDED + RUNNING):
            microvm = launch(self.daemon, image, idlePolicy=AUTO_RESUME)
            microvms.append(microvm)
            wait_for(microvm, "RUNNING")
            if number < SUSPENDED:
                microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
                wait_for(microvm, "SUSPENDED")
            done()
        running = microvms[-1]
        running.token()
        for _ in range(RESTARTS):
            self.daemon.stop()
            began = time.perf_counter()
            self.daemon.start()
            self.samples["restart"].append(milliseconds_since(began))
        for _ in range(RESTARTS):
            began = time.perf_counter()
            self.daemon.kill()
            self.daemon.start()
            running.session.close()
            assert running.request("GET", "/").status_code == 200
            self.samples["recovery"].append(milliseconds_since(began))
        self.samples["restart.suspended"].append(SUSPENDED)
        self.samples["restart.running"].append(RUNNING)
        states = [microvm.state for microvm in microvms]
        assert (states.count("SUSPENDED"), states.count("RUNNING")) == (SUSPENDED, RUNNING), states
        self.daemon.terminate_all()

    def measure_storm(self):
        storm = Storm(self.daemon, self.images[SIZES[0]])
        storm.rage(STORM_SECONDS)
        self.samples["storm_recovery"] += [seconds * 1000 for seconds in storm.recovery_seconds]
        leaks = storm.leaks()
        print("".join(f"  left behind: {leak}\n" for leak in leaks))
        self.samples["leaks"].append(len(leaks))
        self.samples["storm_deaths"].append(storm.deaths)


# The same dirtied memory in four times the memory: the cost must follow the former.
RATIOS = [(f"{what}.{SIZES[1]}.dirty{dirty}", f"{what}.{SIZES[0]}.dirty{dirty}", None, "<=") for what in ("suspend", "wake") for dirty in DIRTY]
RATIOS += [(f"suspend.{SIZES[0]}.dirty{dirty}", f"plain_write.dirty{dirty}", None, "<=") for dirty in DIRTY]
REPORT = Report("lifecycle", "milliseconds unless the name says otherwise; leaks and storm_deaths are counts", ratios=RATIOS)


def main():
    with Daemon().serving() as daemon:
        say_where(daemon)
        bench = Bench(daemon)
        bench.measure_the_disk()
        bench.measure_suspensions()
        bench.measure_restarts()
        bench.measure_storm()
        REPORT.write(bench.samples)


if __name__ == "__main__":
    main()
