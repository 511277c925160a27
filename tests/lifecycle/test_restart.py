"""The daemon ends, orderly or not, and comes back: MicroVMs, images and files are there."""
import json
import time
from pathlib import Path

import pytest

from support import leaks
from support.daemon import Daemon
from support.microvm import AUTO_RESUME, run
from support.waiting import until


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_microvms_outlive_the_daemon(daemon, probe, how):
    with run(daemon, probe) as running, run(daemon, probe, idlePolicy=AUTO_RESUME) as suspended:
        for microvm in (running, suspended):
            microvm.counter = microvm.get("/counter?add=7")["counter"]
            microvm.checksum = microvm.get("/touch?mib=20")["checksum"]
            microvm.request("PUT", "/files/kept", data=b"kept")
            microvm.token()
        suspended.suspend()
        process, boot = running.process(), running.get("/boot-id")
        images = daemon.microvms.list_microvm_images()["items"]

        daemon.restart(how)

        assert daemon.microvms.list_microvm_images()["items"] == images
        assert (running.state, suspended.state) == ("RUNNING", "SUSPENDED")
        assert running.process() == process and suspended.process() is None
        assert running.get("/boot-id") == boot
        # The request wakes the suspended one; tokens minted before are still good.
        for microvm in (running, suspended):
            assert microvm.get("/counter?add=0")["counter"] == microvm.counter
            touched = microvm.get("/touched")
            assert touched["intact"] and touched["checksum"] == microvm.checksum
            assert microvm.request("GET", "/files/kept").content == b"kept"
        # An adopted one is as good as any other.
        running.suspend().resume()
        assert running.get("/counter?add=0")["counter"] == running.counter
        assert running.get("/resolve?name=deb.debian.org&timeout_ms=10000")["server"] == "169.254.169.253"


# Seconds after the call: before, within and after each step of a suspend or a wake.
MOMENTS = (0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.25)


@pytest.mark.parametrize("operation", ["suspend_microvm", "resume_microvm"])
def test_a_daemon_killed_within_an_operation_loses_nothing(daemon, probe, operation):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        checksum = microvm.get("/touch?mib=30")["checksum"]
        microvm.request("PUT", "/files/kept", data=b"kept")
        counter = 0
        for moment in MOMENTS:
            if operation == "resume_microvm":
                microvm.suspend()
            getattr(daemon.microvms, operation)(microvmIdentifier=microvm.id)
            time.sleep(moment)
            daemon.restart("kill")
            until("it is settled", lambda: microvm.state in ("RUNNING", "SUSPENDED"), 30)
            # A request finds it, awake or asleep, with everything that was acknowledged.
            assert microvm.get("/counter?add=1")["counter"] == counter + 1
            counter += 1
            touched = microvm.get("/touched")
            assert touched["intact"] and touched["checksum"] == checksum
            assert microvm.request("GET", "/files/kept").content == b"kept"


def test_a_process_that_died_meanwhile_is_noticed(daemon, probe):
    import os
    import signal
    with run(daemon, probe) as microvm:
        process = microvm.process()
        daemon.kill()
        os.kill(process, signal.SIGKILL)
        daemon.start()
        microvm.wait("TERMINATED")
        assert microvm.describe()["stateReason"]


def test_a_process_that_dies_is_noticed(daemon, probe):
    import os
    import signal
    with run(daemon, probe) as microvm:
        os.kill(microvm.process(), signal.SIGKILL)
        microvm.wait("TERMINATED")
        assert microvm.describe()["stateReason"]
        assert microvm.request("GET", "/", token=microvm.token() if microvm.tokens else "x").status_code in (403, 502)


def test_one_daemon_to_a_directory(daemon):
    import subprocess

    from support import paths
    second = subprocess.run([paths.EMBERBOX, "serve", "--data", daemon.data, "--base", paths.BASE, "--listen", "127.0.0.1:0", "--ingress-port", "0"],
                            capture_output=True, text=True, timeout=30)
    assert second.returncode and "another daemon serves from" in second.stderr
    assert daemon.serves()


def test_a_killed_daemon_leaves_no_link_of_a_machine_that_has_ended(daemon, probe):
    """Its namespace stays for minutes: the daemon's last connection to the guest, which does not answer any more, is not given up sooner."""
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        record = daemon.data / "host/machines" / microvm.id.removeprefix("microvm-") / "machine.json"
        link = f"{leaks.network_prefix(daemon.data)}-{json.loads(record.read_text())['content']['process']['cell']}"
        index = Path(f"/sys/class/net/{link}/ifindex")
        before = index.read_text()
        daemon.arm("host.suspend.commit=kill")
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        daemon.process.wait(30)
        daemon.arm("", wait=False)
        daemon.start()
        # Another one may have its name by now.
        assert not index.exists() or index.read_text() != before
        assert microvm.state == "SUSPENDED"
        assert microvm.get("/")["application"] == "probe"


def test_a_stop_while_cells_are_being_made_leaves_nothing():
    # It serves long before so many are there.
    daemon = Daemon(config="network.pool = 64\n")
    try:
        for wait in (0, 0.05, 0.1, 0.2, 0.4):
            daemon.start()
            time.sleep(wait)
            daemon.stop()
            left = leaks.left_behind(daemon.data)
            assert not left, left
    finally:
        daemon.end()
