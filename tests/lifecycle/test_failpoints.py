"""Every step of a MicroVM's life on real guests: kill -9 of the daemon with a restart, a delay, and for the host's steps an error and a panic. The names come
from the daemon (`emberbox failpoints`), so a step that is new is tested, or fails here for not being reached."""
import subprocess

import pytest

from support import paths
from support.agreement import agree
from support.microvm import AUTO_RESUME, run
from support.waiting import until

POINTS = subprocess.run([paths.EMBERBOX, "failpoints"], capture_output=True, text=True, check=True).stdout.split()
# What makes a point go off, by the beginning of its name.
CHANGES = ("control.run", "control.launch", "host.launch", "host.restore", "control.suspend", "host.suspend", "control.resume", "host.resume",
           "control.terminate", "host.stop")
OF_CHANGES = [point for point in POINTS if point.startswith(CHANGES)]
AT_START = [point for point in POINTS if point.startswith("host.adopt")]
# The host's are in test_failpoints_of_images.py, control's in crates/control/tests/failpoints.rs.
OF_IMAGES = [point for point in POINTS if point.startswith(("images.", "control.build", "host.build", "host.capture", "control.delete", "host.delete"))]
VERIFY = "host.verify.image"
# Only of a daemon that compresses: test_compression.py.
UNPACK = "host.unpack.memory"
TRIES = 4


def test_every_point_is_of_a_known_operation():
    assert sorted([*OF_CHANGES, *AT_START, *OF_IMAGES, VERIFY, UNPACK]) == sorted(POINTS)
    assert len(OF_CHANGES) > 30


def insist(daemon, call, **members):
    """A client that tries again: the daemon may fail the call, or be dead."""
    for attempt in range(TRIES):
        try:
            return call(**members)
        except Exception:
            if daemon.process.poll() is not None or attempt == TRIES - 1:
                raise


class Story:
    """A MicroVM that remembers: a counter in memory, a file on disk."""

    def __init__(self, daemon, image):
        self.daemon, self.image, self.microvm, self.counter = daemon, image, None, 0

    def begin(self):
        self.microvm = run(self.daemon, self.image, idlePolicy=AUTO_RESUME)
        self.microvm.token()
        assert self.microvm.request("PUT", "/files/kept", data=b"kept").status_code == 200
        self.counter = self.microvm.get("/counter?add=1")["counter"]

    def remembers(self):
        """A request finds it, awake or asleep, with everything that was acknowledged."""
        assert self.microvm.get("/counter?add=1")["counter"] == self.counter + 1
        self.counter += 1
        assert self.microvm.request("GET", "/files/kept").content == b"kept"

    def ask(self, operation):
        insist(self.daemon, getattr(self.daemon.microvms, operation), microvmIdentifier=self.microvm.id)

    def change(self, point):
        """Asks for what the point is a step of. Returns whether the MicroVM is to live on."""
        operation = point.split(".")[1]
        if operation in ("run", "launch", "restore"):
            insist(self.daemon, self.daemon.microvms.run_microvm, imageIdentifier=self.image.arn)
        elif operation == "suspend":
            self.ask("suspend_microvm")
        elif operation == "resume":
            self.microvm.suspend()
            self.ask("resume_microvm")
        else:
            self.ask("terminate_microvm")
        return operation not in ("terminate", "stop")


@pytest.fixture(scope="module")
def story(daemon, probe):
    story = Story(daemon, probe)
    story.begin()
    yield story
    daemon.arm("")
    daemon.terminate_all()


def dies(daemon, ask):
    """Asks for something that ends the daemon."""
    try:
        ask()
    except Exception:
        pass
    until("the daemon has died of it", lambda: daemon.process.poll() is not None, 30, 0.01)


def end_others(story):
    """What a launch made besides the story's MicroVM."""
    for microvm in story.daemon.live_microvms():
        if microvm != story.microvm.id:
            story.daemon.microvms.terminate_microvm(microvmIdentifier=microvm)


def look(story, lives_on):
    daemon = story.daemon
    agree(daemon)
    if lives_on:
        story.remembers()
    else:
        # Its termination was asked for, and a client that heard no answer asks again.
        insist(daemon, daemon.microvms.terminate_microvm, microvmIdentifier=story.microvm.id)
        story.microvm.wait("TERMINATED")
    end_others(story)
    states = agree(daemon)
    assert sum(state != "TERMINATED" for state in states.values()) == lives_on
    if not lives_on:
        story.begin()


@pytest.mark.parametrize("point", OF_CHANGES)
def test_killed(daemon, story, point):
    story.remembers()
    daemon.arm(f"{point}=kill")
    dies(daemon, lambda: story.change(point))
    daemon.arm("", wait=False)
    daemon.start()
    look(story, point.split(".")[1] not in ("terminate", "stop"))


# Control's own points fail and panic in crates/control/tests/failpoints.rs; what the host undoes needs a guest.
@pytest.mark.parametrize("point", [point for point in OF_CHANGES if point.startswith("host.")])
def test_failed(daemon, story, point):
    for action in ("error", "panic"):
        daemon.arm(f"{point}={action}")
        lives_on = story.change(point)
        until(f"{point} has gone off", lambda: daemon.went_off(point), 30, 0.02)
        assert daemon.serves()
        look(story, lives_on)


def test_every_step_delayed(daemon, story):
    start = daemon.log.stat().st_size
    daemon.arm("\n".join(f"{point}=delay(50)" for point in OF_CHANGES))
    with run(daemon, story.image) as microvm:
        microvm.suspend().resume()
    agree(daemon)
    missed = [point for point in OF_CHANGES if not daemon.went_off(point, start)]
    assert not missed
    story.remembers()


@pytest.mark.parametrize("point", AT_START)
def test_killed_at_start(daemon, story, point):
    daemon.kill()
    daemon.arm(f"{point}=kill", wait=False)
    with pytest.raises(RuntimeError, match="the daemon ended"):
        daemon.start(quiet=True)
    daemon.arm("", wait=False)
    daemon.start()
    look(story, True)


def touch(daemon):
    """Images of which it is not known any more that they are whole."""
    for memory in (daemon.data / "host/images").glob("*/snapshot/memory"):
        memory.touch()


@pytest.mark.parametrize("action", ("error", "panic", "kill"))
def test_the_proof_of_an_image_is_cut_off(daemon, story, action):
    story.remembers()
    daemon.arm(f"{VERIFY}={action}")
    touch(daemon)
    if action == "kill":
        dies(daemon, lambda: story.change("host.launch"))
        daemon.arm("", wait=False)
        daemon.start()
    else:
        story.change("host.launch")
        until("it has gone off", lambda: daemon.went_off(VERIFY), 30, 0.02)
    look(story, True)
    with run(daemon, story.image):
        pass
