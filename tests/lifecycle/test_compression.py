"""`snapshot.compress`: smaller snapshots that wake as they were, whatever the daemon is configured to do by then."""
import contextlib

import pytest

from support.agreement import agree
from support.damage import ended_with, flip
from support.microvm import AUTO_RESUME, run
from support.waiting import until


@pytest.fixture(scope="module")
def compressing(daemon):
    """The session's daemon with compression, for this module."""
    config, before = daemon.directory / "compress.toml", daemon.config
    config.write_text('[snapshot]\ncompress = "zstd"\n')

    def serve_with(path):
        daemon.stop()
        daemon.config = path
        daemon.start()
    serve_with(config)
    yield lambda on: serve_with(config if on else before)
    serve_with(before)
    config.unlink()


def files(microvm):
    return {path.name for path in (microvm.directory / "snapshot").iterdir()}


def occupied(path):
    return path.stat().st_blocks * 512


def test_compressed_and_plain_ones_wake_either_way(daemon, probe, compressing):
    with run(daemon, probe) as microvm:
        checksum = microvm.get("/touch?mib=20")["checksum"]
        microvm.suspend()
        assert "memory.zst" in files(microvm) and "memory" not in files(microvm)
        packed = occupied(microvm.directory / "snapshot/memory.zst")
        compressing(False)
        microvm.resume()
        assert microvm.get("/touched")["checksum"] == checksum
        assert not list(microvm.directory.rglob("memory.zst")), "what was packed is not kept beside what was unpacked"
        microvm.suspend()
        assert "memory" in files(microvm) and "memory.zst" not in files(microvm)
        assert packed < occupied(microvm.directory / "snapshot/memory")
        compressing(True)
        microvm.resume().suspend().resume()
        touched = microvm.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum


def test_a_damaged_one_is_said(daemon, probe, compressing):
    compressing(True)
    with run(daemon, probe) as microvm:
        microvm.suspend()
        flip(microvm.directory / "snapshot/memory.zst")
        microvm.client.resume_microvm(microvmIdentifier=microvm.id)
        ended_with(microvm, "memory.zst")


@pytest.mark.parametrize("action", ("error", "panic", "kill"))
def test_unpacking_is_cut_off(daemon, probe, compressing, action):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        checksum = microvm.get("/touch?mib=8")["checksum"]
        microvm.suspend()
        daemon.arm(f"host.unpack.memory={action}")
        with contextlib.suppress(Exception):
            microvm.client.resume_microvm(microvmIdentifier=microvm.id)
        if action == "kill":
            until("the daemon has died of it", lambda: daemon.process.poll() is not None, 30, 0.01)
            daemon.arm("", wait=False)
            daemon.start()
        else:
            until("it has gone off", lambda: daemon.went_off("host.unpack.memory"), 30, 0.02)
        agree(daemon)
        touched = microvm.get("/touched")
        assert touched["intact"] and touched["checksum"] == checksum
