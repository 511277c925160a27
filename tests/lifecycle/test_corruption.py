"""A flipped byte in any file of a snapshot is found before a guest runs, and said with the file's name."""
import time

import pytest

from support.daemon import Daemon
from support.damage import ended_with, flip
from support.microvm import AUTO_RESUME, launch, run
from support.waiting import until


OWN = ["snapshot/manifest.json", "snapshot/state", "snapshot/memory", "snapshot/memory.runs", "disk.qcow2", "machine.json"]


@pytest.mark.parametrize("name", OWN)
def test_a_damaged_file_of_a_suspended_microvm(daemon, probe, name):
    with run(daemon, probe) as microvm:
        microvm.get("/touch?mib=3")
        microvm.suspend()
        flip(microvm.directory / name)
        microvm.client.resume_microvm(microvmIdentifier=microvm.id)
        ended_with(microvm, name.rpartition("/")[2])


def test_a_whole_one_wakes_after_the_check(daemon, probe):
    """The check itself changes nothing, and undoing a damage is enough."""
    with run(daemon, probe) as microvm:
        checksum = microvm.get("/touch?mib=3")["checksum"]
        microvm.suspend()
        for name in OWN:
            flip(microvm.directory / name)()
        microvm.resume()
        touched = microvm.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum


OF_THE_IMAGE = ["root.ext4", "disk.qcow2", "overlay.qcow2", "snapshot/memory", "snapshot/state", "snapshot/manifest.json"]


@pytest.fixture(scope="module")
def own_image(daemon, images):
    """Of this module alone: it is damaged all the time."""
    image = images.probe("fragile").built()
    yield image
    image.delete()


@pytest.fixture
def files(daemon, own_image):
    def key(microvm):
        import json
        return json.loads((microvm.directory / "machine.json").read_text())["content"]["image"]
    with run(daemon, own_image) as microvm:
        yield daemon.data / "host/images" / key(microvm)


@pytest.mark.parametrize("name", OF_THE_IMAGE)
def test_a_damaged_file_of_an_image(daemon, own_image, files, name):
    undo = flip(files / name)
    ended_with(launch(daemon, own_image), name.rpartition("/")[2])
    undo()
    with run(daemon, own_image) as again:
        assert again.get("/")["application"] == "probe"


def test_a_suspended_microvm_waits_for_its_image(daemon, own_image, files):
    """What is its own is whole: it stays suspended, and says what is wrong, until the image has been put right."""
    with run(daemon, own_image, idlePolicy=AUTO_RESUME) as microvm:
        counter = microvm.get("/counter?add=5")["counter"]
        microvm.token()
        microvm.suspend()
        undo = flip(files / "snapshot/memory")
        microvm.client.resume_microvm(microvmIdentifier=microvm.id)
        until("it says why", lambda: "snapshot/memory is damaged" in (microvm.describe().get("stateReason") or "").replace(": its checksum differs", " is damaged"))
        assert microvm.state == "SUSPENDED" and microvm.process() is None
        undo()
        assert microvm.get("/counter?add=0")["counter"] == counter


def test_damage_while_the_daemon_is_down(daemon, own_image, files):
    """A damaged record is said at the start; a damaged image is found in the background or by the next launch, whichever comes first."""
    with run(daemon, own_image) as microvm:
        microvm.suspend()
        daemon.stop()
        flip(microvm.directory / "machine.json")
        undo = flip(files / "root.ext4")
        start = daemon.log.stat().st_size
        daemon.start()
        microvm.wait("TERMINATED")
        assert any("machine.json" in event.get("message", "") for event in daemon.events(start))
        ended_with(launch(daemon, own_image), "root.ext4")
        until("the log says so", lambda: any("damaged" in event.get("message", "") for event in daemon.events(start)))
        undo()
    with run(daemon, own_image) as again:
        assert again.get("/")["application"] == "probe"


def test_a_damaged_journal_of_the_records():
    """The daemon does not start on less than it has acknowledged; what runs is not touched; an operator may accept the loss."""
    with Daemon().serving() as daemon:
        daemon.client("s3").create_bucket(Bucket="kept")
        time.sleep(0.5)
        daemon.kill()
        journal = daemon.data / "emberbox.db-wal"
        assert journal.stat().st_size > 10_000, "a killed daemon leaves its journal"
        undo = flip(journal)
        with pytest.raises(RuntimeError, match="the daemon ended with 1"):
            daemon.start()
        log = daemon.log.read_text()
        assert "emberbox.db-wal is damaged in frame 1: records that were acknowledged are lost" in log
        assert "--accept-lost-records" in log
        undo()
        daemon.start()
