"""Virtual machine processes under cgroup limits, where the host offers them; where it does not, the daemon says so once."""
from pathlib import Path

from support.microvm import run
from support.waiting import until

MIB = 1 << 20
# The probe's size: 512 MiB baseline.
MEMORY_MIB, VCPUS = 2048, 1
WARNING = "machines run without limits"


def controllers():
    for line in Path("/proc/self/mounts").read_text().splitlines():
        path, kind = line.split(" ")[1:3]
        if kind == "cgroup2":
            offered = Path(path, "cgroup.controllers").read_text().split()
            return Path(path) if {"cpu", "memory", "pids"} <= set(offered) else None
    return None


def group_of(microvm):
    [path] = [line[3:] for line in Path(f"/proc/{microvm.process()}/cgroup").read_text().splitlines() if line.startswith("0::")]
    return path


def test_limits_or_one_warning(daemon, probe):
    warnings = [event for event in daemon.events() if WARNING in event.get("message", "")]
    starts = [event for event in daemon.events() if event.get("message") == "engine chosen"]
    hierarchy = controllers()
    if hierarchy is None:
        assert len(warnings) == len(starts), "one at each start of the daemon"
        with run(daemon, probe) as microvm:
            assert "emberbox" not in group_of(microvm)
        return
    assert not warnings
    with run(daemon, probe) as microvm:
        group = hierarchy / group_of(microvm).lstrip("/")
        assert group.parent.parent.name == "emberbox"
        read = lambda name: (group / name).read_text().strip()
        assert int(read("memory.max")) > MEMORY_MIB * MIB
        assert int(read("pids.max")) >= 64 + VCPUS and read("cpu.weight") == str(100 * VCPUS)
        assert int(read("memory.current")) > 0 and int(read("pids.current")) > 1
        daemon.restart("kill")
        assert microvm.get("/")["application"] == "probe"
        assert hierarchy / group_of(microvm).lstrip("/") == group
        microvm.suspend()
        until("the group went with the process", lambda: not group.exists())
        microvm.resume()
        group = hierarchy / group_of(microvm).lstrip("/")
    until("the group went with the MicroVM", lambda: not group.exists())
