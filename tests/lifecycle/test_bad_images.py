"""Artifacts and applications that make no image: the reason says why, in AWS's codes, and nothing is left."""
import io
import os
import zipfile

import pytest
from botocore.exceptions import ClientError

from support import leaks
from support.images import PROBE_DOCKERFILE, archive, hooks


def named(name, content=b"x", mode=0o100644):
    """A good archive with one entry of a name that `zip` would not write."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("Dockerfile", "FROM scratch\n")
        info = zipfile.ZipInfo("placeholder")
        info.filename, info.external_attr = name, mode << 16
        target.writestr(info, content)
    return buffer.getvalue()


def bomb():
    """4 GiB of zeros in 4 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        target.writestr("Dockerfile", "FROM scratch\n")
        with target.open("zeros", "w", force_zip64=True) as zeros:
            for _ in range(64):
                zeros.write(bytes(16 << 20))
    return buffer.getvalue()


# name: (zip, reason code, words of the reason)
ARTIFACTS = {
    "not-a-zip": (lambda: b"this is no zip archive, " * 100, "ARCHIVE_INVALID", "not a zip archive"),
    "empty": (lambda: b"", "ARCHIVE_INVALID", ""),
    "cut-off": (lambda: archive({"Dockerfile": "FROM scratch\n", "file": os.urandom(10000)})[:5000], "ARCHIVE_INVALID", ""),
    "no-dockerfile": (lambda: archive({"file": "x"}), "ARCHIVE_DOCKERFILE_NOT_FOUND", "no Dockerfile at its root"),
    "dockerfile-in-a-directory": (lambda: archive({"app/Dockerfile": PROBE_DOCKERFILE}), "ARCHIVE_DOCKERFILE_NOT_FOUND", "app/"),
    "parent-directory": (lambda: named("../../../tmp/emberbox-escaped"), "ARCHIVE_INVALID", ""),
    "absolute": (lambda: named("/tmp/emberbox-escaped"), "ARCHIVE_INVALID", ""),
    "backslashes": (lambda: named("..\\..\\tmp\\emberbox-escaped"), "ARCHIVE_INVALID", ""),
    "link-out": (lambda: named("link", b"/etc/passwd", 0o120777), "ARCHIVE_INVALID", ""),
    "bomb": (bomb, "ARCHIVE_INVALID", ""),
}


@pytest.fixture(scope="module")
def refused_artifacts(images):
    """All of them at once; none comes as far as a builder."""
    return {name: images.create(name, make()) for name, (make, _, _) in ARTIFACTS.items()}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_artifact(daemon, refused_artifacts, name):
    _, code, words = ARTIFACTS[name]
    image = refused_artifacts[name]
    reason = image.failure()
    assert reason.startswith(f"{code}: ") and words in reason
    assert str(daemon.data) not in reason, "paths of the host are the operator's"
    assert "snapshotBuild" not in image.build()
    assert not os.path.exists("/tmp/emberbox-escaped")


@pytest.mark.parametrize("uri, code", [("s3://emberbox-no-such-bucket/key.zip", "S3_NO_SUCH_BUCKET"), ("s3://{bucket}/no-such-key.zip", "S3_NO_SUCH_KEY")])
def test_missing_object(images, uri, code):
    image = images.create_from("missing", uri.format(bucket=images.bucket))
    assert image.failure().startswith(f"{code}: ")
    image.delete()


@pytest.mark.parametrize("uri", ["not a uri", "https://bucket/key.zip", "s3://bucket", "s3://"])
def test_malformed_uri(daemon, images, uri):
    with pytest.raises(ClientError) as error:
        images.create_from("malformed", uri)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    # By name: other tests' images come and go meanwhile.
    assert daemon.microvms.list_microvm_images(nameFilter="malformed")["items"] == []


DOCKERFILE_FAILS = """FROM debian:13-slim
COPY emberbox-probe /probe
RUN echo the last words; exit 3
"""
NO_SUCH_FILE = "FROM scratch\nCOPY no-such-file /file\n"
READY = hooks(timeout=60)

# name: (what the image is made with, words of the reason, whether the container build itself succeeded)
APPLICATIONS = {
    "dockerfile-fails": ({"dockerfile": DOCKERFILE_FAILS}, ["CONTAINER_BUILD_FAILED", "exit 3", "the last words"], False),
    "dockerfile-copies-nothing": ({"dockerfile": NO_SUCH_FILE}, ["CONTAINER_BUILD_FAILED", "no-such-file"], False),
    "ready-500": ({"environment": {"PROBE_READY": "500"}, "hooks": READY}, ["Ready lifecycle hook returned HTTP status 500."], True),
    "never-ready": ({"environment": {"PROBE_READY": "never"}, "hooks": hooks(ready=4)}, ["Ready hook invocation timed out after PT4S"], True),
    "silent": ({"environment": {"PROBE_READY": "silent"}, "hooks": hooks(ready=4)}, ["Ready hook invocation timed out after PT4S"], True),
    "starts-nothing": ({"dockerfile": "FROM scratch\nCOPY emberbox-probe /probe\n"}, ["neither ENTRYPOINT nor CMD"], True),
    "exits-without-hooks": ({"environment": {"PROBE_READY": "exit"}, "hooks": {}}, ["exited with code 7", "exiting as asked"], True),
    "exits": ({"environment": {"PROBE_READY": "exit"}, "hooks": READY}, ["exited with code 7"], True),
}


@pytest.fixture(scope="module")
def failing(images):
    """All builds at once; the daemon queues what it cannot do side by side."""
    return {name: images.probe(name, **members) for name, (members, _, _) in APPLICATIONS.items()}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(failing, name):
    _, words, container_built = APPLICATIONS[name]
    reason = failing[name].failure()
    assert all(word in reason for word in words), reason
    sizes = failing[name].build().get("snapshotBuild", {})
    assert set(sizes) == ({"codeInstallSizeInBytes"} if container_built else set())


def test_nothing_is_left_of_failed_builds(daemon, failing, refused_artifacts):
    for image in [*failing.values(), *refused_artifacts.values()]:
        image.ended()
    assert leaks.entries(daemon.data / "builds") == leaks.entries(daemon.data / "host/work") == []
    # No version of theirs can be launched, and they can be deleted.
    for image in [*failing.values(), *refused_artifacts.values()]:
        with pytest.raises(ClientError, match="No active version found for MicroVM image"):
            daemon.microvms.run_microvm(imageIdentifier=image.arn)
        image.delete()
