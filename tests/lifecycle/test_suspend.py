"""Suspend, resume, wake, terminate: hooks, memory, disk, processes."""
import threading
import time

import pytest
from botocore.exceptions import ClientError

from support.microvm import AUTO_RESUME, run
from support.waiting import until


def remember(microvm):
    """Leaves a trace in memory and on disk, and returns a check that it is still there."""
    counter = microvm.get("/counter?add=41")["counter"]
    touched = microvm.get("/touch?mib=100")
    content = f"{microvm.id} was here".encode() * 1000
    assert microvm.request("PUT", "/files/kept", data=content).status_code == 200
    boot = microvm.get("/boot-id")

    def check():
        assert microvm.get("/counter?add=0")["counter"] == counter
        again = microvm.get("/touched")
        assert again["intact"] and again["checksum"] == touched["checksum"]
        assert microvm.request("GET", "/files/kept").content == content
        assert microvm.get("/boot-id") == boot, "it is the same guest"
        asked = time.time()
        assert asked - 1 < microvm.get("/clock")["unix"] < time.time() + 1
    return check


def test_memory_and_disk_survive_and_the_process_does_not(daemon, probe):
    with run(daemon, probe) as microvm:
        intact, process = remember(microvm), microvm.process()
        assert process
        for _ in range(2):
            microvm.suspend()
            assert microvm.process() is None
            microvm.resume()
            assert microvm.process() not in (None, process)
            intact()


def test_hooks_in_order(daemon, probe):
    """ready and validate are the image's; a launch adds run, and each suspension and resumption its own."""
    start = daemon.log.stat().st_size
    with run(daemon, probe, runHookPayload="p") as microvm:
        microvm.suspend().resume().suspend().resume()
        calls = microvm.get("/hooks")["hooks"]
        names = [call["hook"] for call in calls]
        # The validated copy was another one: its call is not in the snapshot.
        assert names == ["ready"] * names.count("ready") + ["run", "suspend", "resume", "suspend", "resume"]
        assert names.count("ready") >= 1
        walls = [call["wall"] for call in calls]
        assert walls == sorted(walls)
        assert microvm.get("/run-payload")["body"].count(microvm.id) == 1

    def ended():
        return [event for event in daemon.events(start) if event.get("operation") == "terminate" and microvm.id in str(event)]
    # The state is there before the line is.
    assert "terminate_hook" in until("the log has it", ended)[0]["steps"], "the terminate hook was called"


def test_suspended_without_auto_resume_is_502(daemon, probe):
    with run(daemon, probe) as microvm:
        token = microvm.token()
        microvm.suspend()
        assert microvm.request("GET", "/", token=token).status_code == 502
        assert microvm.state == "SUSPENDED"


def test_a_request_wakes(daemon, probe):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        intact, token = remember(microvm), microvm.token()
        microvm.suspend()
        assert microvm.process() is None
        assert microvm.request("GET", "/hostname", token=token).json()["hostname"] == microvm.host_name
        assert microvm.state == "RUNNING"
        intact()


def test_many_requests_share_one_wake(daemon, probe):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        microvm.token()
        microvm.suspend()
        statuses = []
        threads = [threading.Thread(target=lambda: statuses.append(microvm.request("GET", "/").status_code)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 10
        assert [call["hook"] for call in microvm.get("/hooks")["hooks"]].count("resume") == 1


def test_repeated_and_impossible_changes(daemon, probe):
    with run(daemon, probe) as microvm:
        microvm.client.resume_microvm(microvmIdentifier=microvm.id)
        microvm.suspend()
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        assert microvm.state == "SUSPENDED"
    microvm.client.terminate_microvm(microvmIdentifier=microvm.id)
    for change in (microvm.client.suspend_microvm, microvm.client.resume_microvm):
        with pytest.raises(ClientError, match="has been terminated and its state cannot be changed.") as error:
            change(microvmIdentifier=microvm.id)
        assert error.value.response["Error"]["Code"] == "ConflictException"
    shown = microvm.describe()
    assert shown["state"] == "TERMINATED" and shown["terminatedAt"] >= shown["startedAt"]


def test_terminating_leaves_nothing(daemon, probe):
    with run(daemon, probe) as running, run(daemon, probe) as suspended:
        suspended.suspend()
        assert running.directory.exists() and suspended.directory.exists()
    for microvm in (running, suspended):
        assert microvm.process() is None
        until("the files are gone", lambda: not microvm.directory.exists())


def test_with_the_stock_cli(daemon, probe):
    """The whole way of a MicroVM, typed."""
    call = lambda operation, *rest: daemon.aws("lambda-microvms", operation, *rest)
    started = call("run-microvm", "--image-identifier", probe.arn, "--idle-policy",
                   "maxIdleDurationSeconds=600,suspendedDurationSeconds=600,autoResumeEnabled=true")
    own = ("--microvm-identifier", started["microvmId"])
    state = lambda wanted: until(wanted, lambda: call("get-microvm", *own)["state"] == wanted, 60, 0.2)
    state("RUNNING")
    assert "X-aws-proxy-auth" in call("create-microvm-auth-token", *own, "--expiration-in-minutes", "5", "--allowed-ports", "port=8080")["authToken"]
    call("suspend-microvm", *own)
    state("SUSPENDED")
    call("resume-microvm", *own)
    state("RUNNING")
    call("terminate-microvm", *own)
    state("TERMINATED")
