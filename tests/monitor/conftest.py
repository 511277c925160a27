"""Machines that the tests of the monitor share."""
import os
import subprocess

import pytest

from monitor import driver
from monitor.driver import Monitor


@pytest.fixture(scope="session")
def hostile_initramfs(tmp_path_factory):
    """A root of the malicious guest's program alone."""
    root = tmp_path_factory.mktemp("root")
    for directory in ("dev", "proc"):
        (root / directory).mkdir()
    os.mknod(root / "dev/console", 0o600 | 0o020000, os.makedev(5, 1))
    subprocess.run(["install", driver.HOSTILE, root / "init"], check=True)
    archive = tmp_path_factory.mktemp("archive") / "initramfs"
    with open(archive, "wb") as file:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], cwd=root, input=b".\ninit\ndev\ndev/console\nproc\n", stdout=file, check=True)
    return archive


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A machine of two vCPUs that was booted, snapshotted and ended: its files."""
    work = tmp_path_factory.mktemp("frozen")
    driver.enter_network()
    machine = Monitor(work)
    steps = machine.boot(driver.overlay(work, work), work / "memory", vcpus=2, extra="ignore_loglevel")
    assert list(steps)[-2:] == ["run", "rest"]
    assert machine.ask("ping") == "done"
    machine.call("pause")
    machine.save_state(work / "state")
    machine.end()
    return work
