"""How the kernel answers faults, on machines that run KVM guests."""
import contextlib
import subprocess
from pathlib import Path

DEBUG = Path("/sys/kernel/debug")


def debug_files():
    (DEBUG / "kvm").exists() or subprocess.run(["mount", "-t", "debugfs", "none", DEBUG], check=True)
    return DEBUG


@contextlib.contextmanager
def single_pages():
    """The lab's data lie in memory, where the page cache cannot be emptied for the recording of a working set: the kernel is told not to map neighbours along
    while that is done, as it has none at hand on a disk."""
    around = debug_files() / "fault_around_bytes"
    former = around.read_text()
    around.write_text("4096")
    try:
        yield
    finally:
        around.write_text(former)


def faults_of(pid):
    """How often the guest of this process has left for KVM for want of a page."""
    [counter] = (debug_files() / "kvm").glob(f"{pid}-*/pf_taken")
    return int(counter.read_text())
