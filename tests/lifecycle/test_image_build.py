"""CreateMicrovmImage: states, versions, build records, logs."""
from support import paths
from support.images import archive, hooks
from support.microvm import run


def test_states_and_first_version(daemon, probe_build):
    answer = probe_build.answer
    assert (answer["state"], answer["imageVersion"]) == ("CREATING", "1.0")
    assert answer["imageArn"].startswith(f"arn:aws:lambda:us-east-1:{daemon.endpoint()['account']}:microvm-image:probe-")
    image = probe_build.built().describe()
    assert (image["state"], image["latestActiveImageVersion"]) == ("CREATED", "1.0")
    version = daemon.microvms.get_microvm_image_version(imageIdentifier=probe_build.arn, imageVersion="1.0")
    assert (version["state"], version["status"]) == ("SUCCESSFUL", "ACTIVE")
    assert version["environmentVariables"] == {"COLOUR": "blue"}


def test_build_record(probe):
    build = probe.build()
    assert (build["buildState"], build["architecture"], build["imageVersion"]) == ("SUCCESSFUL", "X86_64", "1.0")
    sizes = build["snapshotBuild"]
    assert set(sizes) == {"codeInstallSizeInBytes", "memorySnapshotSizeInBytes", "diskSnapshotSizeInBytes"}
    assert all(size > 0 for size in sizes.values())


def test_build_log(probe):
    [log] = probe.logs()
    assert "COPY emberbox-probe /probe" in log, log
    assert "probe: listening on 8080" in log, log


def test_the_stock_cli_sees_the_image(daemon, probe):
    listed = daemon.aws("lambda-microvms", "list-microvm-images")["items"]
    assert probe.arn in [item["imageArn"] for item in listed]
    shown = daemon.aws("lambda-microvms", "get-microvm-image", "--image-identifier", probe.arn)
    assert (shown["state"], shown["imageArn"]) == ("CREATED", probe.arn)


def test_a_name_is_taken_once(daemon, images, probe):
    import pytest
    from botocore.exceptions import ClientError

    name, before = probe.arn.rpartition(":")[2], daemon.microvms.list_microvm_images()["items"]
    with pytest.raises(ClientError, match=f"A MicroVM image with the name '{name}' already exists in this account") as error:
        daemon.microvms.create_microvm_image(name=name, **images.definition(probe.answer["codeArtifact"]["uri"]))
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert daemon.microvms.list_microvm_images()["items"] == before


def test_from_debian_without_a_registry(daemon, images):
    """A Dockerfile on the Debian image, which needs no registry: files, a RUN step, environment and working directory."""
    dockerfile = """FROM debian:13-slim
ENV FROM_DOCKERFILE=yes
WORKDIR /data
RUN echo "made by $BUILD_SECRET" > made
COPY emberbox-probe /usr/local/bin/probe
CMD ["probe"]
"""
    files = {"Dockerfile": dockerfile, "emberbox-probe": paths.PROBE}
    image = images.create("debian", files, hooks=hooks(), environmentVariables={"BUILD_SECRET": "a build's environment"}).built()
    with run(daemon, image) as microvm:
        environment = microvm.get("/env")
        assert (environment["FROM_DOCKERFILE"], environment["BUILD_SECRET"]) == ("yes", "a build's environment")
        assert microvm.request("GET", "/files/made").text == "made by a build's environment\n"
    image.delete()
