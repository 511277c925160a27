"""Every step of a build and of a deletion on real guests, killed (kill -9 of the daemon), failed and panicked: the build ends with a reason, nothing of it
stays, and the same image is built by the next try.

Two images are built side by side: at each step the daemon is killed, while the other one's build fails a step earlier. Whether it fails by an error or by a
panic alternates; EMBERBOX_LONG=1 does both. The next version of both is the proof that nothing is in the way."""
import itertools
import os
import shutil
import subprocess
import time

import pytest

from support import leaks, paths
from support.agreement import agree
from support.daemon import Daemon
from support.images import Image, Images, archive, hooks, PROBE_DOCKERFILE
from support.microvm import run
from support.waiting import until

POINTS = subprocess.run([paths.EMBERBOX, "failpoints"], capture_output=True, text=True, check=True).stdout.split()
# In the order in which a build takes them.
STEPS = [*(point for point in POINTS if point in ("images.build.fetch", "images.build.unpack")), *(point for point in POINTS if point.startswith("host.build")),
         "images.build.root_disk", *(point for point in POINTS if point.startswith("host.capture")), "images.build.capture"]
DELETIONS = [point for point in POINTS if point.startswith("host.delete_image")]
FAILURES = ("error", "panic")
CUT_OFF = "INTERNAL_PLATFORM_ERROR: the daemon restarted during the build"
FAULT = "INTERNAL_PLATFORM_ERROR"
# Seconds that one build is ahead of the other, so that as a rule its failure is over when the other one's step kills.
AHEAD = 0.7


def rounds():
    """(the step a build fails at or None, how, the step the daemon is killed at)."""
    ways = itertools.cycle(FAILURES)
    for index, step in enumerate(STEPS):
        before = STEPS[index - 1] if index else None
        for way in FAILURES if os.environ.get("EMBERBOX_LONG") else [next(ways)]:
            yield before, way, step


class Story:
    """Two images on a daemon of their own, made again and again."""

    def __init__(self, daemon):
        self.daemon, self.images = daemon, Images(daemon)
        self.uri = self.images.upload(archive({"Dockerfile": PROBE_DOCKERFILE, "emberbox-probe": paths.require(paths.PROBE, "run `make build`")}))
        self.pair = []

    def definition(self):
        return self.images.definition(self.uri, hooks=hooks(("ready", "validate")))

    def build(self, only=("CREATE_FAILED", "UPDATE_FAILED", "CREATED", "UPDATED")):
        """Begins to build both, for the first time or once more. One whose creation the daemon did not outlive is created the next time."""
        for number, name in enumerate("ab"):
            if number == len(self.pair):
                self.pair.append(self.images.create_from(f"cut-{name}", self.uri, hooks=hooks(("ready", "validate"))))
            else:
                image = self.pair[number]
                if image.describe()["state"] not in only:
                    continue
                answer = self.daemon.microvms.update_microvm_image(imageIdentifier=image.arn, **self.definition())
                self.pair[number] = Image(self.daemon, image.arn, answer["imageVersion"], answer)
            time.sleep(AHEAD)

    def failed(self):
        """The two reasons."""
        reasons = []
        for image in self.pair:
            assert image.ended()["state"] in ("CREATE_FAILED", "UPDATE_FAILED")
            build = image.build()
            version = self.daemon.microvms.get_microvm_image_version(imageIdentifier=image.arn, imageVersion=image.version)
            assert (version["state"], build["buildState"]) == ("FAILED", "FAILED") and version["stateReason"] == build["stateReason"]
            reasons.append(build["stateReason"])
        return reasons

    def files_agree(self):
        """Records = processes = namespaces = files, those of images and builds too."""
        agree(self.daemon)
        whole = sum(self.whole_versions(image) for image in self.pair)

        def left():
            found = [f"builds/{name}" for name in leaks.entries(self.daemon.data / "builds")]
            kept = leaks.entries(self.daemon.data / "host/images")
            return found + ([] if len(kept) == whole else [f"{whole} versions and the files of {kept}"])
        try:
            until("nothing is left", lambda: not left(), 20, 0.1)
        except TimeoutError:
            raise AssertionError(left()) from None

    def whole_versions(self, image):
        client = self.daemon.microvms
        try:
            pages = client.get_paginator("list_microvm_image_versions").paginate(imageIdentifier=image.arn)
            return sum(item["state"] == "SUCCESSFUL" for page in pages for item in page["items"])
        except client.exceptions.ResourceNotFoundException:
            return 0


@pytest.fixture(scope="module")
def story():
    with Daemon(config="[build]\nparallel = 2\n").serving() as daemon:
        try:
            yield Story(daemon)
        finally:
            daemon.arm("", wait=daemon.process.poll() is None)


def test_every_step_is_in_the_order_of_a_build():
    assert sorted(STEPS + DELETIONS) == sorted(point for point in POINTS if point.startswith(("images.", "host.build", "host.capture", "host.delete")))
    assert len(STEPS) > 15 and len(DELETIONS) > 1


def killed(daemon, ask=lambda: None):
    try:
        ask()
    except Exception:  # noqa: BLE001  it died of it
        pass
    until("the daemon has died of it", lambda: daemon.process.poll() is not None, 120, 0.02)
    daemon.arm("", wait=False)
    daemon.start()


@pytest.mark.parametrize(("fails_at", "how", "killed_at"), list(rounds()))
def test_a_build_is_cut_off(story, fails_at, how, killed_at):
    daemon = story.daemon
    daemon.arm("\n".join([*([f"{fails_at}={how}"] if fails_at else []), f"{killed_at}=kill"]))
    armed_at = daemon.log.stat().st_size
    killed(daemon, story.build)
    reasons = story.failed()
    assert any(reason.startswith(CUT_OFF) for reason in reasons) and all(reason.startswith(FAULT) for reason in reasons), reasons
    # A failure that the kill overtakes is told as the daemon's end: what counts is that it happened, is told, and leaves nothing.
    assert fails_at is None or daemon.went_off(fails_at, armed_at)
    story.files_agree()


@pytest.mark.parametrize("how", FAILURES if os.environ.get("EMBERBOX_LONG") else ("panic",))
def test_the_last_step_fails(story, how):
    """At the last one nobody is left to be killed: the other build succeeds."""
    story.daemon.arm(f"{STEPS[-1]}={how}")
    story.build()
    states = sorted(image.ended()["state"] for image in story.pair)
    assert states == ["UPDATED", "UPDATE_FAILED"]
    story.files_agree()


def test_after_all_that_both_are_built_and_launched(story):
    story.build(only=("CREATE_FAILED", "UPDATE_FAILED"))
    for image in story.pair:
        image.built()
        with run(story.daemon, image) as microvm:
            assert microvm.get("/")["application"] == "probe"
    story.files_agree()


@pytest.mark.parametrize("point", DELETIONS)
def test_a_deletion_is_cut_off(story, point, tmp_path):
    """By an error and a panic it fails and says so, and a kill is outlived; what is set aside never stays."""
    daemon, images = story.daemon, story.daemon.data / "host/images"
    image = story.pair[DELETIONS.index(point)]
    # Files for each try: what a failed deletion has done need not be built again.
    shutil.copytree(images, tmp_path / "images", copy_function=os.link)
    for how in FAILURES:
        daemon.arm(f"{point}={how}")
        image.delete()
        until("the deletion has failed", lambda: image.describe()["state"] == "DELETE_FAILED", 30, 0.02)
        assert daemon.went_off(point) and not leaks.entries(daemon.data / "host/work")
        for key in leaks.entries(tmp_path / "images"):
            if not (images / key).exists():
                shutil.copytree(tmp_path / "images" / key, images / key, copy_function=os.link)
    daemon.arm(f"{point}=kill")
    killed(daemon, image.delete)

    def gone():
        try:
            return image.describe()["state"] == "DELETED"
        except daemon.microvms.exceptions.ResourceNotFoundException:
            return True
    until("the next start goes on with it", gone, 30, 0.05)
    story.files_agree()
