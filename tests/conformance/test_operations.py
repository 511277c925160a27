"""Every operation called validly, its answer held against the output shape by the client (support/shapes.py) and against what was asked by the test."""
import contextlib
import time
import uuid

import pytest

from support import microvm as microvms
from support.waiting import until

IMAGE_ENDED = {"CREATED", "CREATE_FAILED", "UPDATED", "UPDATE_FAILED"}


@pytest.fixture
def client(endpoint):
    return endpoint.microvms


@pytest.fixture(scope="session")
def everything(endpoint, images):
    """Every member that a definition of an image has. Nothing is at the artifact's place: its build fails, without a guest."""
    region = endpoint.endpoint()["region"]
    return {
        "baseImageArn": images.managed(), "baseImageVersion": "1", "buildRoleArn": images.role, "description": "all members",
        "codeArtifact": {"uri": f"s3://{images.bucket}/nothing-here.zip"},
        "logging": {"cloudWatch": {"logGroup": "/conformance/group", "logStream": "stream"}},
        "egressNetworkConnectors": [f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:INTERNET_EGRESS"],
        "cpuConfigurations": [{"architecture": "X86_64"}], "resources": [{"minimumMemoryInMiB": 1024}], "additionalOsCapabilities": ["ALL"],
        "hooks": {"port": 9000,
                  "microvmHooks": {f"{name}{suffix}": value for name in ("run", "resume", "suspend", "terminate")
                                   for suffix, value in (("", "ENABLED"), ("TimeoutInSeconds", 5))},
                  "microvmImageHooks": {"ready": "ENABLED", "readyTimeoutInSeconds": 60, "validate": "DISABLED"}},
        "environmentVariables": {"COLOUR": "blue", "EMPTY": ""},
    }


@contextlib.contextmanager
def image(client, **members):
    answer = client.create_microvm_image(name=f"conformance-{uuid.uuid4().hex[:8]}", clientToken=uuid.uuid4().hex, **members)
    try:
        yield answer
    finally:
        until("the image can be deleted", lambda: deleted(client, answer["imageArn"]), 60)


def deleted(client, arn):
    # It is still being built: a ValidationException at AWS (observed).
    with contextlib.suppress(client.exceptions.ConflictException, client.exceptions.ValidationException):
        return client.delete_microvm_image(imageIdentifier=arn)


def ended(client, arn):
    return until(f"the build of {arn} ends", lambda: (found := client.get_microvm_image(imageIdentifier=arn))["state"] in IMAGE_ENDED and found, 60)


def as_kept(definition):
    """The version of the base is listed as `1` and echoed as `1.0` (observed)."""
    return definition | {"baseImageVersion": "1.0"}


def assert_has(answer, members):
    assert {name: answer.get(name) for name in members} == members


@pytest.mark.answers("CreateMicrovmImage", "GetMicrovmImage", "ListMicrovmImages", "ListMicrovmImageVersions", "GetMicrovmImageVersion",
                     "ListMicrovmImageBuilds", "GetMicrovmImageBuild", "DeleteMicrovmImage")
def test_an_image_and_all_that_is_said_of_it(client, everything):
    before = time.time()
    with image(client, tags={"team": "a b", "empty": ""}, **everything) as created:
        arn = created["imageArn"]
        assert_has(created, as_kept(everything) | {"tags": {"team": "a b", "empty": ""}, "imageVersion": "1.0", "state": "CREATING"})
        assert arn.endswith(f":microvm-image:{created['name']}")
        assert abs(created["createdAt"].timestamp() - before) < 60, "times are now"
        found = ended(client, arn)
        assert_has(found, {"imageArn": arn, "name": created["name"], "state": "CREATE_FAILED", "latestFailedImageVersion": "1.0", "tags": created["tags"]})
        assert "latestActiveImageVersion" not in found
        [listed] = client.list_microvm_images(nameFilter=created["name"])["items"]
        assert (listed["imageArn"], listed["state"]) == (arn, "CREATE_FAILED")
        [version] = client.list_microvm_image_versions(imageIdentifier=arn)["items"]
        assert_has(version, as_kept(everything) | {"imageArn": arn, "imageVersion": "1.0", "state": "FAILED", "status": "INACTIVE"})
        same = client.get_microvm_image_version(imageIdentifier=arn, imageVersion="1.0")
        assert {name: value for name, value in same.items() if name != "ResponseMetadata"} == version
        [build] = client.list_microvm_image_builds(imageIdentifier=arn, imageVersion="1.0")["items"]
        got = client.get_microvm_image_build(imageIdentifier=arn, imageVersion="1.0", buildId=build["buildId"])
        assert got["buildState"] == "FAILED" and got["stateReason"].startswith("S3_NO_SUCH_KEY")
        assert "snapshotBuild" not in got, "there is none of a container that was never built"
        answer = deleted(client, arn)
        assert answer["imageIdentifier"] == arn and answer["state"] in ("DELETING", "DELETED")


@pytest.mark.answers("UpdateMicrovmImage", "DeleteMicrovmImageVersion")
def test_an_update_is_the_next_version(client, everything):
    with image(client, **everything) as created:
        arn = created["imageArn"]
        ended(client, arn)
        # PUT: what is not said again is gone.
        least = {name: everything[name] for name in ("baseImageArn", "buildRoleArn", "codeArtifact")}
        updated = client.update_microvm_image(imageIdentifier=arn, clientToken=uuid.uuid4().hex, **least)
        assert_has(updated, least | {"imageArn": arn, "imageVersion": "2.0", "state": "UPDATING"})
        assert "environmentVariables" not in updated and "hooks" not in updated
        assert ended(client, arn)["state"] == "UPDATE_FAILED"
        numbers = [version["imageVersion"] for version in client.list_microvm_image_versions(imageIdentifier=arn)["items"]]
        assert numbers == ["2.0", "1.0"]
        answer = client.delete_microvm_image_version(imageIdentifier=arn, imageVersion="1.0")
        assert (answer["imageIdentifier"], answer["imageVersion"]) == (arn, "1.0") and answer["state"] in ("DELETING", "DELETED")


@pytest.mark.answers("CreateMicrovmImage", "UpdateMicrovmImage", "DeleteMicrovmImage")
def test_client_tokens_replay(client, everything):
    token, name = uuid.uuid4().hex, f"conformance-{uuid.uuid4().hex[:8]}"
    first, second = (client.create_microvm_image(name=name, clientToken=token, **everything) for _ in range(2))
    assert {**first, "ResponseMetadata": None} == {**second, "ResponseMetadata": None}
    ended(client, first["imageArn"])
    updates = [client.update_microvm_image(imageIdentifier=first["imageArn"], clientToken=token, **everything) for _ in range(2)]
    assert [update["imageVersion"] for update in updates] == ["2.0", "2.0"], "a token is of one operation"
    ended(client, first["imageArn"])
    for _ in range(2):
        client.delete_microvm_image(imageIdentifier=first["imageArn"])


@pytest.mark.answers("UpdateMicrovmImageVersion", "GetMicrovmImageBuild")
def test_a_version_that_was_built(client, probe):
    build = probe.build()
    assert set(build["snapshotBuild"]) == {"memorySnapshotSizeInBytes", "codeInstallSizeInBytes", "diskSnapshotSizeInBytes"}
    for status in ("INACTIVE", "ACTIVE"):
        answer = client.update_microvm_image_version(imageIdentifier=probe.arn, imageVersion=probe.version, status=status)
        assert_has(answer, {"imageArn": probe.arn, "imageVersion": probe.version, "status": status, "state": "SUCCESSFUL"})
    assert client.get_microvm_image(imageIdentifier=probe.arn)["latestActiveImageVersion"] == probe.version


@pytest.mark.answers("ListManagedMicrovmImages", "ListManagedMicrovmImageVersions")
def test_managed_images(client):
    for managed in client.list_managed_microvm_images()["items"]:
        versions = client.list_managed_microvm_image_versions(imageIdentifier=managed["imageArn"])["items"]
        assert versions and all(version["imageArn"] == managed["imageArn"] and version["imageVersion"].isdigit() for version in versions)


@pytest.mark.answers("TagResource", "ListTags", "UntagResource")
def test_tags(client, everything):
    with image(client, **everything) as created:
        arn = created["imageArn"]
        client.tag_resource(Resource=arn, Tags={"a": "1", "b b": "é/=+-@.:_"})
        client.tag_resource(Resource=arn, Tags={"a": "2"})
        assert client.list_tags(Resource=arn)["Tags"] == {"a": "2", "b b": "é/=+-@.:_"}
        client.untag_resource(Resource=arn, TagKeys=["b b", "not there"])
        assert client.list_tags(Resource=arn)["Tags"] == {"a": "2"} == client.get_microvm_image(imageIdentifier=arn)["tags"]


@pytest.mark.answers("RunMicrovm", "GetMicrovm", "ListMicrovms", "SuspendMicrovm", "ResumeMicrovm", "CreateMicrovmAuthToken", "TerminateMicrovm")
def test_the_life_of_a_microvm(endpoint, client, probe):
    region = endpoint.endpoint()["region"]
    connector = f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:"
    asked = {"idlePolicy": {"maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 0, "autoResumeEnabled": False},
             "maximumDurationInSeconds": 3600, "ingressNetworkConnectors": [f"{connector}HTTP_INGRESS"],
             "egressNetworkConnectors": [f"{connector}INTERNET_EGRESS"]}
    other = {"imageVersion": probe.version, "logging": {"disabled": {}}, "runHookPayload": "sEcReT", "clientToken": uuid.uuid4().hex}
    with microvms.launch(endpoint, probe, **asked, **other) as microvm:
        assert_has(microvm.answer, asked | {"imageArn": probe.arn, "imageVersion": probe.version, "state": "PENDING"})
        again = microvms.launch(endpoint, probe, **asked, **other)
        assert again.id == microvm.id, "a client token replays"
        got = microvm.wait("RUNNING").describe()
        assert_has(got, asked | {"microvmId": microvm.id, "endpoint": microvm.host, "startedAt": microvm.answer["startedAt"]})
        assert "sEcReT" not in str(got)
        listed = client.list_microvms(imageIdentifier=probe.arn, imageVersion=probe.version)["items"]
        assert [item["state"] for item in listed if item["microvmId"] == microvm.id] == ["RUNNING"]
        token = client.create_microvm_auth_token(microvmIdentifier=microvm.id, expirationInMinutes=60, allowedPorts=[
            {"port": 8080}, {"range": {"startPort": 9000, "endPort": 9001}}, {"allPorts": {}}])["authToken"]["X-aws-proxy-auth"]
        assert token.count(".") == 4, "a compact JWE"
        microvm.suspend()
        assert [item["state"] for item in client.list_microvms(imageIdentifier=probe.arn)["items"] if item["microvmId"] == microvm.id] == ["SUSPENDED"]
        microvm.resume()
        microvm.terminate()
        assert (ended_at := microvm.describe()["terminatedAt"]) >= microvm.answer["startedAt"], ended_at
