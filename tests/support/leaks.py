"""What a daemon owns on this machine, found without asking it: processes, interfaces, packet filter tables, files."""
import os
import subprocess
from pathlib import Path


def _links(pid):
    """Everything a process has open, works in or has mapped by a descriptor."""
    process = Path("/proc") / pid
    try:
        names = [process / "cwd", *(process / "fd").iterdir()]
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(name)
        except OSError:
            continue


def processes_in(directory):
    """Processes, but for this one, that hold a file below `directory`: {pid: command line}."""
    prefix, found = f"{Path(directory).resolve()}/", {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid() and any(link.startswith(prefix) for link in _links(pid)):
            found[int(pid)] = command_line(pid)
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:160]
    except OSError:
        return ""


def virtual_machines_in(directory):
    """As `processes_in`, the virtual machines alone."""
    programs = ("qemu-system-x86_64", "emberbox-vmm")
    return {pid: line for pid, line in processes_in(directory).items() if line.split(" ")[0].rpartition("/")[2] in programs}


def network_prefix(data):
    """`ebNN`, the prefix of everything this daemon makes in the host's network."""
    record = Path(data) / "host/network"
    return f"eb{int(record.read_text()):02}" if record.exists() else None


def interfaces_of(data):
    prefix = network_prefix(data)
    return [name for name in os.listdir("/sys/class/net") if prefix and name.startswith(f"{prefix}-")]


def tables_of(data):
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [table for table in tables if network_prefix(data) and table.endswith(f" {network_prefix(data)}")]


def entries(directory):
    return sorted(path.name for path in Path(directory).iterdir()) if Path(directory).is_dir() else []


def left_behind(data):
    """Everything of a stopped daemon without MicroVMs that should not be there, in words."""
    left = [f"process {pid}: {line}" for pid, line in processes_in(data).items()]
    left += [f"interface {name}" for name in interfaces_of(data)]
    left += [f"packet filter: {table}" for table in tables_of(data)]
    for directory in ("host/machines", "host/work", "builds", "s3/staging"):
        left += [f"file {directory}/{name}" for name in entries(Path(data) / directory)]
    return left
