"""RunMicrovm that fails: at the door, and by the application's own hook."""
import pytest
from botocore.exceptions import ClientError

from support.images import hooks
from support.microvm import launch, run
from support.waiting import until


def listed(daemon):
    return [item["microvmId"] for page in daemon.microvms.get_paginator("list_microvms").paginate() for item in page["items"]]


def refused(daemon, code, words, call=None, **members):
    before = listed(daemon)
    with pytest.raises(ClientError) as error:
        (call or daemon.microvms.run_microvm)(**members)
    response = error.value.response["Error"]
    assert response["Code"] == code and words in response["Message"]
    assert listed(daemon) == before


def test_unknown_image(daemon, probe):
    arn = f"{probe.arn}-no"
    refused(daemon, "ResourceNotFoundException", f"No active version found for MicroVM image {arn}", imageIdentifier=arn)


def test_unknown_version(daemon, probe):
    words = f"No active version found for MicroVM image {probe.arn} and version 9.0"
    refused(daemon, "ResourceNotFoundException", words, imageIdentifier=probe.arn, imageVersion="9.0")


@pytest.mark.parametrize("arn", ["probe", "microvm-image:probe", "ARN:aws:lambda:us-east-1:123456789012:microvm-image:x"])
def test_not_an_arn(daemon, arn):
    refused(daemon, "ValidationException", "Malformed ARN - doesn't start with 'arn:'", imageIdentifier=arn)


@pytest.mark.parametrize("arn", ["arn:", "arn:aws:lambda", "arn:aws:s3:::bucket", "arn:aws:lambda:us-east-1:123456789012:microvm-image/x"])
def test_malformed_arn(daemon, arn):
    refused(daemon, "ValidationException", "", imageIdentifier=arn)


def test_bare_connector_name(daemon, probe):
    refused(daemon, "ValidationException", "Malformed network connector ARN", imageIdentifier=probe.arn, ingressNetworkConnectors=["HTTP_INGRESS"])


def test_all_ingress_with_others(daemon, probe):
    connector = lambda name: f"arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:{name}"
    refused(daemon, "ValidationException", "ALL_INGRESS cannot be combined with other ingress network connectors", imageIdentifier=probe.arn,
            ingressNetworkConnectors=[connector("ALL_INGRESS"), connector("HTTP_INGRESS")])


def test_inactive_version(daemon, probe):
    change = lambda status: daemon.microvms.update_microvm_image_version(imageIdentifier=probe.arn, imageVersion="1.0", status=status)
    change("INACTIVE")
    try:
        refused(daemon, "ResourceNotFoundException", f"No active version found for MicroVM image {probe.arn}", imageIdentifier=probe.arn)
    finally:
        change("ACTIVE")


@pytest.mark.parametrize("operation", ["get_microvm", "suspend_microvm", "resume_microvm", "terminate_microvm"])
@pytest.mark.parametrize("microvm", ["microvm-00000000-0000-4000-8000-000000000000", "nonsense"])
def test_unknown_microvm(daemon, operation, microvm):
    refused(daemon, "ResourceNotFoundException", microvm, getattr(daemon.microvms, operation), microvmIdentifier=microvm)


HOOK_FAILURES = {
    "run-400": ({"PROBE_RUN": "400"}, hooks(microvm=("run",)), "Run lifecycle hook returned HTTP status 400."),
    "run-hangs": ({"PROBE_RUN": "hang"}, hooks(microvm=("run",), run=2), "Run hook invocation timed out after PT2S"),
}


@pytest.fixture(scope="module")
def stubborn(images):
    """Refuses to be suspended for long, and to be resumed."""
    environments = {"suspend": {"PROBE_SUSPEND": "500"}, "resume": {"PROBE_RESUME": "500"}}
    return {name: images.probe(name, environment, hooks=hooks(microvm=("suspend", "resume"))) for name, environment in environments.items()}


def test_a_refused_suspend_leaves_it_running(daemon, stubborn):
    with run(daemon, stubborn["suspend"].built()) as microvm:
        counter = microvm.get("/counter?add=3")["counter"]
        microvm.client.suspend_microvm(microvmIdentifier=microvm.id)
        reason = until("the refusal is told", lambda: microvm.describe().get("stateReason"))
        assert reason.startswith("Suspend lifecycle hook returned HTTP status 500.")
        assert microvm.state == "RUNNING" and microvm.get("/counter?add=0")["counter"] == counter


def test_a_failed_resume_hook_ends_it_and_says_why(daemon, stubborn):
    microvm = run(daemon, stubborn["resume"].built()).suspend()
    microvm.client.resume_microvm(microvmIdentifier=microvm.id)
    microvm.wait("TERMINATED")
    assert microvm.describe()["stateReason"].startswith("Resume lifecycle hook returned HTTP status 500.")
    assert microvm.process() is None


@pytest.fixture(scope="module")
def failing(images):
    return {name: images.probe(name, environment, hooks=calls) for name, (environment, calls, _) in HOOK_FAILURES.items()}


@pytest.mark.parametrize("name", HOOK_FAILURES)
def test_run_hook(daemon, failing, name):
    image = failing[name].built()
    microvm = launch(daemon, image).wait("TERMINATED")
    assert HOOK_FAILURES[name][2] in microvm.describe()["stateReason"]
    assert microvm.process() is None
    until("its files are gone", lambda: not microvm.directory.exists())
    image.delete()
