"""Lives by policy and accident: idle policies, computation, orderly stops, reboots, what is kept and told, and the doctor."""
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time

import pytest
from botocore.exceptions import ClientError

from support import leaks, paths
from support.daemon import Daemon
from support.images import Images, hooks
from support.microvm import AUTO_RESUME, run
from support.waiting import until

CONFIGURATION = """
[shutdown]
suspend = true

[retention]
lost_disk_seconds = 3600
"""


@pytest.fixture(scope="module")
def own():
    """A daemon of this module's own, that suspends what runs when it stops."""
    with Daemon(config=CONFIGURATION).serving() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def image(own):
    return Images(own).probe("lives", {"PROBE_SAMPLER": "off"}, hooks=hooks(microvm=("suspend", "resume"))).built()


def emberbox(daemon, *arguments):
    return subprocess.run([paths.EMBERBOX, *arguments, "--data", daemon.data], capture_output=True, text=True, timeout=60)


def events(daemon, about=None):
    printed = emberbox(daemon, "events", *([about] if about else []))
    assert printed.returncode == 0, printed.stderr
    return [json.loads(line) for line in printed.stdout.splitlines()]


def test_an_orderly_stop_suspends_and_a_reboot_takes_nothing(own, image):
    with run(own, image, idlePolicy=AUTO_RESUME) as first, run(own, image) as second:
        for microvm in (first, second):
            microvm.counter = microvm.get("/counter?add=5")["counter"]
        own.stop()
        assert not leaks.virtual_machines_in(own.data), "a host may be switched off now"
        own.start()
        for microvm in (first, second):
            shown = microvm.describe()
            assert (shown["state"], shown["stateReason"]) == ("SUSPENDED", "Suspended because the daemon was stopped (shutdown.suspend)")
        second.resume()
        for microvm in (first, second):
            assert microvm.get("/counter?add=0")["counter"] == microvm.counter
        told = [(event["to"], event["cause"]) for event in events(own, first.id)]
        assert ("SUSPENDED", "shutdown") in told and ("RUNNING", "traffic") in told


def test_a_host_that_went_down_hard(own, image):
    """The daemon and every process of its machines die at once."""
    with run(own, image, idlePolicy=AUTO_RESUME) as asleep, run(own, image) as awake:
        counter = asleep.get("/counter?add=5")["counter"]
        asleep.suspend()
        own.kill()
        for process in leaks.virtual_machines_in(own.data):
            os.kill(process, signal.SIGKILL)
        own.start()
        awake.wait("TERMINATED")
        assert awake.describe()["stateReason"] == "INTERNAL_PLATFORM_ERROR: the MicroVM did not survive a restart of the host"
        kept = own.data / "host/kept" / awake.host_name
        until("what is left of it is kept", lambda: (kept / "disk.qcow2").exists())
        assert asleep.get("/counter?add=0")["counter"] == counter
        found = [event for event in events(own) if event["event"] == "started"][-1]["found"]
        assert (found["lost"], found["suspended"], found["running"]) == (1, 1, 0)


def test_the_files_of_one_that_died_outlive_its_image(own, image, tmp_path):
    copy = Images(own).probe("kept", hooks=hooks()).built()
    microvm = run(own, copy)
    content = os.urandom(50_000)
    assert microvm.request("PUT", "/files/precious?sync=1", data=content).status_code == 200
    os.kill(microvm.process(), signal.SIGKILL)
    microvm.wait("TERMINATED")
    copy.delete()
    until("the image is gone", lambda: gone(copy))
    disk = tmp_path / "disk.ext4"
    salvaged = emberbox(own, "salvage", microvm.id, "--to", disk)
    assert salvaged.returncode == 0, salvaged.stderr
    # As docs/operations.md says it.
    found = subprocess.run(["debugfs", "-R", f"rdump / {tmp_path}", disk], capture_output=True, text=True)
    assert [path.read_bytes() for path in tmp_path.rglob("precious")] == [content], found.stderr
    nothing = emberbox(own, "salvage", "microvm-00000000-0000-4000-8000-000000000000", "--to", tmp_path / "none")
    assert nothing.returncode == 1 and "nothing is kept of it" in nothing.stderr
    again = emberbox(own, "salvage", microvm.id, "--to", disk)
    assert again.returncode == 1 and "name a new file" in again.stderr


def test_short_of_memory_nothing_is_launched_and_idle_ones_are_suspended(own, image):
    """How much is short is configured: of this machine's, nearly all."""
    configured = own.config.read_text()
    with run(own, image, idlePolicy=AUTO_RESUME) as idle, run(own, image) as kept:
        counter = idle.get("/counter?add=5")["counter"]
        try:
            own.config.write_text(f"{configured}\n[memory]\nlow_percent = 99\n")
            own.restart("kill")
            with pytest.raises(ClientError) as failed:
                run(own, image)
            refused = failed.value.response["Error"]
            assert refused["Code"] == "InsufficientCapacityException" and "the host is out of memory" in refused["Message"]
            idle.wait("SUSPENDED")
            assert idle.describe()["stateReason"].startswith("Suspended before its time to free memory of the host")
            assert ("SUSPENDED", "memory-pressure") in [(event["to"], event["cause"]) for event in events(own, idle.id)]
            # Nobody would wake this one.
            assert kept.get("/")["application"] == "probe" and kept.state == "RUNNING"
        finally:
            own.config.write_text(configured)
            own.restart("kill")
        assert idle.get("/counter?add=0")["counter"] == counter
        with run(own, image) as again:
            assert again.get("/")["application"] == "probe"


def gone(image):
    try:
        return image.describe()["state"] == "DELETED"
    except image.daemon.microvms.exceptions.ResourceNotFoundException:
        return True


def test_a_look_does_not_change_an_older_database(own):
    own.stop()
    database = own.data / "emberbox.db"
    whole = database.read_bytes()
    with contextlib.closing(sqlite3.connect(database)) as records:
        records.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        records.commit()
    older, names = database.read_bytes(), leaks.entries(own.data)
    refused = emberbox(own, "doctor")
    assert refused.returncode == 1 and "older version" in refused.stderr and "--repair" in refused.stderr, refused.stderr
    assert (database.read_bytes(), leaks.entries(own.data)) == (older, names)
    database.write_bytes(whole)
    looked = emberbox(own, "doctor")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert (database.read_bytes(), leaks.entries(own.data)) == (whole, names)
    own.start()


def test_computing_is_not_idle(own, image):
    own.client("lambda-microvms").tag_resource(Resource=image.arn, Tags={"emberbox:idle": "traffic+cpu"})
    policy = {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 3600, "autoResumeEnabled": True}
    with run(own, image, idlePolicy=policy) as busy, run(own, image, idlePolicy=policy) as idle:
        # Nobody waits for the answer: the request is over at once, and the computation goes on.
        spin = lambda: busy.session.get(f"https://{busy.host}/spin?ms=75000&background=1", headers={"X-aws-proxy-auth": busy.token()}, timeout=10)
        idle.get("/counter?add=1")
        assert spin().status_code == 200
        idle.wait("SUSPENDED", 110)
        assert idle.describe()["stateReason"] == "Suspended by the idle policy after 60 seconds without traffic or computation"
        assert busy.state == "RUNNING"
        audited = [json.loads(line) for line in emberbox(own, "audit").stdout.splitlines()]
        of_idle = [record for record in audited if record["eventName"] == "MicrovmSuspended" and idle.id in str(record)]
        assert [record["serviceEventDetails"]["cause"] for record in of_idle] == ["idle-policy"]


def test_the_doctor(own, image):
    with run(own, image) as microvm:
        microvm.suspend()
        healthy = emberbox(own, "doctor", "--thorough")
        assert healthy.returncode == 0 and "records, files and processes agree" in healthy.stdout, healthy.stdout + healthy.stderr
        assert "engine: " + own.engine().split('"')[1] in healthy.stdout
        refused = emberbox(own, "doctor", "--repair")
        assert refused.returncode and "stop it to repair" in refused.stderr
        own.stop()
        # What nobody owns, and what nothing is left of.
        stray = own.data / "host/machines/00000000-0000-4000-8000-000000000000"
        stray.mkdir()
        (own.data / "host/images/nobody-1").mkdir()
        sick = emberbox(own, "doctor")
        assert sick.returncode == 1 and sick.stdout.count("can be removed") == 2, sick.stdout
        repaired = emberbox(own, "doctor", "--repair")
        assert repaired.returncode == 0 and repaired.stdout.count("(repaired)") == 2, repaired.stdout + repaired.stderr
        assert not stray.exists()
        # A snapshot that is damaged is found and left to a person.
        memory = own.data / "host/machines" / microvm.host_name / "snapshot/state"
        whole = memory.read_bytes()
        memory.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        damaged = emberbox(own, "doctor", "--thorough")
        assert damaged.returncode == 1 and "its snapshot is damaged" in damaged.stdout, damaged.stdout
        memory.write_bytes(whole)
        assert emberbox(own, "doctor", "--thorough").returncode == 0
        own.start()
        microvm.resume()
