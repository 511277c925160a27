#!/usr/bin/env python3
"""What a launch costs, measured through stock clients on examples/code-sandbox (a Python server):  make bench SUITE=launch

cold_boot_to_200  the capture's own steps in ten builds of the image: boot of the guest, start of the application, its first 200 (/ready)
run_to_running    RunMicrovm called -> GetMicrovm says RUNNING, asked every 5 ms
run_to_200        RunMicrovm called -> token -> TLS -> the application's first 200; the request waits for RUNNING by itself
suspend, resume   called -> the new state is seen, asked every 5 ms; the guest has touched 100 MiB
wake_to_200       request to a suspended MicroVM over a new connection -> its 200; the guest has touched 100 MiB
launch.<step>     from the daemon's log; daemon_share is their sum without QEMU's and the guest's (NOT_OURS)
build.<step>      likewise; build_copy is an image that only copies files

EMBERBOX_BENCH_REPETITIONS (10) and EMBERBOX_BENCH_BUILDS (10) change how often.
"""
import os
import time
from pathlib import Path

from common.report import Progress, Report, Samples
from common.watching import disk_kib, milliseconds_since, say_where, steps_of, wait_for
from support import paths
from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import AUTO_RESUME, Microvm

REPETITIONS = int(os.environ.get("EMBERBOX_BENCH_REPETITIONS", 10))
BUILDS = int(os.environ.get("EMBERBOX_BENCH_BUILDS", 10))
TAKE = "import os\nkept = bytearray(100 << 20)"
# Every page changes, in place.
TOUCH = "kept[::4096] = os.urandom(len(kept) // 4096)"
NOT_OURS = {"process", "restore", "guest", "clock"}
COLD_BOOT = ("boot", "start_application", "ready")
IDLE_AT_ONCE = 5


class Bench:
    def __init__(self, daemon):
        self.daemon, self.samples = daemon, Samples()
        self.images, self.image = Images(daemon), None

    def launch(self):
        return Microvm(self.daemon, self.daemon.microvms.run_microvm(imageIdentifier=self.image.arn, idlePolicy=AUTO_RESUME))

    def execute(self, microvm, code):
        answer = microvm.request("POST", "/execute", json={"code": code})
        assert answer.status_code == 200 and not answer.json().get("error"), answer.text
        return answer.json()

    def build_images(self):
        """One after the other, so that none slows another. The last sandbox is what is launched."""
        directory = paths.ROOT / "examples/code-sandbox"
        files = {name: directory / name for name in ("Dockerfile", "app.py", "tinyhttp.py")}
        called = hooks(timeout=60, microvm=("run", "suspend", "resume", "terminate"))
        self.build_often("build", "builds of examples/code-sandbox", lambda: self.images.create("sandbox", files, hooks=called))
        sandbox, self.image = self.image, None
        self.build_often("build_copy", "builds that only copy files", lambda: self.images.probe("probe"))
        self.image.delete()
        self.image = sandbox

    def build_often(self, name, words, create):
        done = Progress(words, BUILDS)
        for _ in range(BUILDS):
            if self.image:
                self.image.delete()
            self.timed_build(name, create)
            done()

    def timed_build(self, name, create):
        start, began = self.daemon.log.stat().st_size, time.perf_counter()
        self.image = create().built()
        self.samples[f"{name}_total"].append(milliseconds_since(began))
        [event] = [event for event in self.daemon.events(start) if event.get("message") == "build ended"]
        steps, machine = steps_of(event), ""
        for step, ms, _ in steps:
            self.samples[f"{name}.{machine}{step}"].append(ms)
            if step == "end":
                machine = "capture."  # The builder's machine has ended; the same names mean the application's from here on.
        cold = sum(self.samples[f"{name}.capture.{step}"][-1] for step in COLD_BOOT)
        self.samples["cold_boot_to_200" if name == "build" else "cold_boot_to_200.copy"].append(cold)

    def measure_launches(self):
        start = self.daemon.log.stat().st_size
        done = Progress("launches", 2 * REPETITIONS)
        for _ in range(REPETITIONS):
            began = time.perf_counter()
            with self.launch() as microvm:
                wait_for(microvm, "RUNNING")
                self.samples["run_to_running"].append(milliseconds_since(began))
            done()
            began = time.perf_counter()
            with self.launch() as microvm:
                assert microvm.request("GET", "/").status_code == 200
                self.samples["run_to_200"].append(milliseconds_since(began))
            done()
        for event in self.daemon.events(start):
            if event.get("message") == "host call ended" and event.get("operation") == "launch":
                self.add_launch_steps(steps_of(event))

    def add_launch_steps(self, steps):
        for name, ms, _ in steps:
            self.samples[f"launch.{name}"].append(ms)
        self.samples["daemon_share"].append(sum(ms for name, ms, whose in steps if whose == "control" or name not in NOT_OURS))

    def measure_suspensions(self):
        start = self.daemon.log.stat().st_size
        done = Progress("suspensions of a guest that touched 100 MiB", 2 * REPETITIONS)
        with self.launch() as microvm:
            self.execute(microvm, TAKE)
            for repetition in range(2 * REPETITIONS):
                # Touched anew before each: what was saved once is not written twice.
                self.execute(microvm, TOUCH)
                began = time.perf_counter()
                microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
                wait_for(microvm, "SUSPENDED")
                self.samples["suspend"].append(milliseconds_since(began))
                self.samples["disk_suspended_100mib_kib"].append(disk_kib(microvm.directory))
                began = time.perf_counter()
                if repetition % 2:
                    microvm.client.resume_microvm(microvmIdentifier=microvm.id)
                    wait_for(microvm, "RUNNING")
                    self.samples["resume"].append(milliseconds_since(began))
                else:
                    microvm.session.close()
                    assert microvm.request("GET", "/").status_code == 200
                    self.samples["wake_to_200"].append(milliseconds_since(began))
                done()
        for event in self.daemon.events(start):
            if event.get("message") == "host call ended" and event.get("operation") in ("suspend", "resume"):
                for name, ms, _ in steps_of(event):
                    self.samples[f"{event['operation']}.{name}"].append(ms)

    def measure_footprint(self):
        """Several at once, so that what they share is shared."""
        microvms = []
        try:
            for _ in range(IDLE_AT_ONCE):
                microvms.append(self.launch())
                assert microvms[-1].request("GET", "/").status_code == 200
            time.sleep(1)
            for microvm in microvms:
                rollup = Path(f"/proc/{microvm.process()}/smaps_rollup").read_text().splitlines()
                kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
                self.samples["memory_idle_pss_kib"].append(kib["Pss"])
                self.samples["memory_idle_pss_without_clean_shared_kib"].append(kib["Pss"] - kib.get("Pss_File", 0))
                self.samples["memory_idle_pss_anon_kib"].append(kib.get("Pss_Anon", 0))
            for microvm in microvms:
                microvm.suspend()
                self.samples["disk_suspended_idle_kib"].append(disk_kib(microvm.directory))
        finally:
            for microvm in microvms:
                microvm.terminate()


TARGETS = {"run_to_200": 500, "run_to_running": 250, "suspend": 500, "wake_to_200": 800, "daemon_share": 30, "build_total": 90_000, "build_copy_total": 20_000}
REPORT = Report("launch", "milliseconds unless the name says kib", TARGETS, [("cold_boot_to_200", "run_to_200", 8, ">=")])


def main():
    with Daemon().serving() as daemon:
        bench = Bench(daemon)
        say_where(daemon)
        bench.build_images()
        bench.measure_launches()
        bench.measure_suspensions()
        bench.measure_footprint()
        REPORT.write(bench.samples)


if __name__ == "__main__":
    main()
