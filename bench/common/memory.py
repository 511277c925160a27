"""Whether a machine with more memory takes longer to restore: the monitor by itself with a guest of one vCPU that has booted and whose agent answers. MicroVMs
of different sizes have different numbers of vCPUs too, which on one emulated CPU is what would be measured."""
import contextlib
import tempfile
import time
from pathlib import Path

from common.report import Progress, in_turn
from common.watching import milliseconds_since
from monitor import driver
from monitor.driver import Monitor, overlay

SIZES_MIB = (256, 8192)


def key(mib, *step):
    return ".".join(["restore_of_mib", str(mib), *step])


def measure(samples, repetitions):
    """Moves this process into a network namespace of its own. The sizes take turns, so that what the machine is busy with meets both."""
    driver.enter_network()
    with contextlib.ExitStack() as stack:
        machines = {mib: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emberbox-bench-"))) for mib in SIZES_MIB}
        for mib, work in machines.items():
            freeze(work, mib)
        done = Progress("restores of " + " and ".join(f"{mib} MiB" for mib in SIZES_MIB), repetitions)
        for number in range(repetitions):
            for mib, work in in_turn(machines, number):
                for step, milliseconds in restore(work, mib).items():
                    samples[key(mib, *step)].append(milliseconds)
            done()


def freeze(work, mib):
    machine = Monitor(work)
    try:
        machine.boot(overlay(work, work), work / "memory", memory=mib)
        assert machine.ask("ping") == "done"
        machine.call("pause")
        machine.save_state(work / "state")
    finally:
        machine.end()


def restore(work, mib):
    """Milliseconds from the start of the process to the agent's answer, under the name (), and of it those of each step of the monitor's own."""
    began = time.perf_counter()
    machine = Monitor(work)
    try:
        steps = machine.restore(overlay(work, work), work / "memory", work / "state", memory=mib)
        restored = milliseconds_since(began)
        assert machine.ask("ping") == "done"
        answered = milliseconds_since(began)
    finally:
        machine.end()
    own = {(step,): microseconds / 1000 for step, microseconds in steps.items()}
    return {(): answered, **own, ("guest",): answered - restored}
