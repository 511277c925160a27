"""The systemd unit: what systemd itself says of it, and what a daemon under it does."""
import os
import shutil
import socket
import subprocess
import tomllib

import pytest

from support import paths
from support.daemon import Daemon

UNIT = paths.ROOT / "packaging/emberbox.service"


def settings():
    lines = [line.strip() for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_systemd_finds_no_fault(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze (Debian: systemd)")
    unit = tmp_path / "emberbox.service"
    # The program is not installed here.
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/emberbox", str(paths.EMBERBOX)))
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    # It also speaks of the units it pulls in: what counts is what it says of this one.
    of_ours = [line for line in result.stderr.splitlines() if "emberbox" in line]
    assert not of_ours, result.stderr


def test_its_times_fit_the_daemons():
    unit = settings()
    defaults = tomllib.loads((paths.ROOT / "docs/emberbox.example.toml").read_text())
    assert unit["KillMode"] == "process" and unit["Type"] == "notify"
    assert int(unit["TimeoutStopSec"]) >= defaults["shutdown"]["suspend_seconds"] + 60 + 10


def test_the_manager_is_told(tmp_path, monkeypatch):
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        daemon = Daemon().start()
        try:
            assert b"READY=1" in manager.recv(4096)
            daemon.stop()
            assert b"STOPPING=1" in manager.recv(4096)
        finally:
            monkeypatch.delenv("NOTIFY_SOCKET")
            daemon.end()
    assert not os.path.exists(daemon.directory)
