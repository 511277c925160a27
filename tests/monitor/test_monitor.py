"""The monitor by itself, on a real /dev/kvm: what a machine is after a snapshot, and what it refuses.

    cargo xtask lab -- /opt/venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests tests/monitor

In a process of its own, for it moves into a network namespace."""
import json
import os
import subprocess
import time

import pytest

from monitor import driver
from monitor.driver import Monitor, Refused, clone, overlay

pytestmark = driver.NEEDS_KVM


def test_a_snapshot_of_a_restored_machine_is_the_snapshot_it_came_from(frozen, tmp_path):
    """But for what has to differ: clocks, and what the guest did since."""
    machine = clone(frozen, tmp_path)
    machine.call("pause")
    machine.save_state(tmp_path / "state")
    machine.end()
    first, second = (frozen / "state").read_bytes(), (tmp_path / "state").read_bytes()
    assert first[:12] == second[:12]
    assert abs(len(first) - len(second)) < 64
    same = sum(a == b for a, b in zip(first[20:], second[20:]))
    assert same > 0.5 * len(first)


def test_restored_machines_answer_and_know_that_they_are_copies(frozen, tmp_path):
    for prepared in (True, False):
        work = tmp_path / str(prepared)
        work.mkdir()
        machine = clone(frozen, work, prepared)
        assert machine.ask("ping") == "done"
        deadline = time.time() + 20
        while "crng reseeded due to virtual machine fork" not in machine.console():
            assert time.time() < deadline, "the guest's kernel did not notice its new generation"
            time.sleep(0.1)
        assert machine.call("stats") == {"paused": False, "vcpus": 2, "memory_mib": 512}
        machine.end()


@pytest.mark.parametrize("io_uring", [True, False])
def test_a_machine_has_one_ring_or_none(frozen, tmp_path, io_uring):
    machine = clone(frozen, tmp_path, io_uring=io_uring)
    assert machine.ask("ping") == "done"
    directory = f"/proc/{machine.process.pid}/fd"
    rings = [number for number in os.listdir(directory) if os.readlink(f"{directory}/{number}") == "anon_inode:[io_uring]"]
    assert len(rings) == int(io_uring)
    machine.end()


def test_a_paused_machine_is_silent_and_goes_on(frozen, tmp_path):
    machine = clone(frozen, tmp_path)
    machine.call("pause")
    machine.call("pause")
    with pytest.raises(OSError):
        link = machine.open("ping", wait=False, timeout=2)
        link.settimeout(2)
        assert link.recv(1)
    machine.call("resume")
    assert machine.ask("ping") == "done"
    machine.end()


def test_a_restarted_daemon_finds_its_machine(frozen, tmp_path):
    machine = clone(frozen, tmp_path)
    machine.reconnect()
    assert machine.call("stats")["vcpus"] == 2
    assert machine.ask("ping") == "done"
    machine.end()


def test_a_monitor_without_a_machine_ends_with_its_daemon(tmp_path):
    machine = Monitor(tmp_path)
    machine.call({"prepare": {"vcpus": 1}})
    machine.socket.close()
    assert machine.process.wait(20) == 0


def test_clones_share_the_snapshot_and_cannot_write_it(frozen, tmp_path):
    before = subprocess.run(["sha256sum", frozen / "memory", frozen / "raw"], capture_output=True, check=True).stdout
    machine = clone(frozen, tmp_path)
    assert machine.ask("ping") == "done"
    machine.end()
    assert subprocess.run(["sha256sum", frozen / "memory", frozen / "raw"], capture_output=True, check=True).stdout == before


@pytest.mark.parametrize("damage, says", [
    (lambda state: state[:100] + bytes([state[100] ^ 1]) + state[101:], "damaged"),
    (lambda state: state[:-1], "damaged"),
    (lambda state: b"QEVM" + state[4:], "not one of this engine's"),
    (lambda state: state[:8] + b"\x63\0\0\0" + state[12:], "format 99"),
])
def test_a_snapshot_that_does_not_fit_is_refused_with_the_reason(frozen, tmp_path, damage, says):
    (tmp_path / "state").write_bytes(damage((frozen / "state").read_bytes()))
    machine = Monitor(tmp_path)
    with pytest.raises(Refused, match=says):
        machine.restore(overlay(frozen, frozen), frozen / "memory", tmp_path / "state", vcpus=2)
    machine.end()


def test_another_shape_is_refused(frozen, tmp_path):
    machine = Monitor(tmp_path)
    with pytest.raises(Refused, match="2 vCPUs"):
        machine.restore(overlay(frozen, frozen), frozen / "memory", frozen / "state", vcpus=1)
    machine.end()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"\xff\xfe\n", b'{"generation":1,"request":"boot"}\n', b'{"generation":7,"request":"pause"}\n'])
def test_nonsense_is_answered_and_harms_nothing(tmp_path, line):
    machine = Monitor(tmp_path)
    machine.socket.sendall(line)
    assert "failed" in json.loads(machine.socket.recv(65536))
    with pytest.raises(Refused, match="no machine"):
        machine.call("pause")
    machine.end()


def test_the_monitor_is_confined(tmp_path):
    """As the kernel sees it, before it has a machine."""
    machine = Monitor(tmp_path)
    machine.call({"prepare": {"vcpus": 1}})
    process = f"/proc/{machine.process.pid}"
    status = dict(line.split(":\t", 1) for line in open(f"{process}/status").read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(driver.UID)] * 4 and status["Gid"].split() == [str(driver.UID)] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.listdir(f"{process}/root") == []
    for namespace in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(f"{process}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}"), namespace
    for task in os.listdir(f"{process}/task"):
        assert "Seccomp:\t2" in open(f"{process}/task/{task}/status").read()
    machine.end()
