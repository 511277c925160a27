"""RunMicrovm, GetMicrovm, ListMicrovms."""
import uuid

import pytest
from botocore.exceptions import ClientError

from support.microvm import run


@pytest.fixture(scope="module")
def microvm(daemon, probe):
    with run(daemon, probe, runHookPayload='{"session": "é"}', maximumDurationInSeconds=3600) as microvm:
        yield microvm


def test_answer(microvm, probe):
    assert microvm.answer["state"] == "PENDING"
    shown = microvm.describe()
    assert uuid.UUID(shown["microvmId"].removeprefix("microvm-")).version == 4
    assert (shown["state"], shown["imageArn"], shown["imageVersion"], shown["maximumDurationInSeconds"]) == ("RUNNING", probe.arn, "1.0", 3600)
    assert shown["ingressNetworkConnectors"] == ["arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:HTTP_INGRESS"]
    assert shown["egressNetworkConnectors"] == ["arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS"]
    assert shown["microvmId"].removeprefix("microvm-") not in shown["endpoint"]


def test_the_payload_reaches_the_hook_and_nobody_else(microvm):
    import json
    body = json.loads(microvm.get("/run-payload")["body"])
    assert body == {"microvmId": microvm.id, "runHookPayload": '{"session": "é"}'}
    assert "runHookPayload" not in microvm.describe()


def test_listed(daemon, microvm, probe):
    listed = daemon.aws("lambda-microvms", "list-microvms", "--image-identifier", probe.arn)["items"]
    assert microvm.id in [item["microvmId"] for item in listed]
    assert {item["imageArn"] for item in listed} == {probe.arn}


def test_environment(microvm):
    assert microvm.get("/env")["COLOUR"] == "blue"


def test_a_client_token_launches_once(daemon, probe):
    token = uuid.uuid4().hex
    with run(daemon, probe, clientToken=token) as microvm:
        again = daemon.microvms.run_microvm(imageIdentifier=probe.arn, clientToken=token)
        assert again["microvmId"] == microvm.id
        with pytest.raises(ClientError) as error:
            daemon.microvms.run_microvm(imageIdentifier=probe.arn, clientToken=token, maximumDurationInSeconds=60)
        assert error.value.response["Error"]["Code"] == "ConflictException"


def test_an_image_in_use_stays(daemon, microvm, probe):
    with pytest.raises(ClientError) as error:
        daemon.microvms.delete_microvm_image(imageIdentifier=probe.arn)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert probe.describe()["state"] == "CREATED"


def test_many_at_once(daemon, probe):
    from support.microvm import launch
    launched = [launch(daemon, probe) for _ in range(6)]
    try:
        answers = {microvm.wait("RUNNING").get("/urandom")["random"] for microvm in launched}
        assert len(answers) == len(launched)
        assert len({microvm.process() for microvm in launched}) == len(launched)
    finally:
        for microvm in launched:
            microvm.terminate()
