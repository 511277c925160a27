"""What the build has noted of a launch is in place when the next ones run."""
import json
import mmap
import struct
from pathlib import Path

from support.faults import faults_of, single_pages
from support.images import hooks
from support.microvm import run


def working_set_of(microvm):
    """[(offset, length, kind)] of its image's; kinds are bits: 1 written, 2 touched after the agent had answered."""
    image = json.loads((microvm.directory / "machine.json").read_text())["content"]["image"]
    return list(struct.iter_unpack("<QQQ", (microvm.daemon.data / "host/images" / image / "snapshot/workingset").read_bytes()))


def test_what_launches_touch_is_known_from_the_build_and_in_place_before_they_run(daemon, images):
    with single_pages():
        image = images.probe("touched", hooks=hooks(("ready",)), resources=[{"minimumMemoryInMiB": 512}]).built()
    with run(daemon, image) as first:
        pages = working_set_of(first)
        needed = sum(length for _, length, kind in pages if not kind & 2) // mmap.PAGESIZE
        written = [offset for offset, _, kind in pages if kind == 1]
        assert 100 < needed <= 8192 and len(written) > 10
        pid = first.process()
        faults = faults_of(pid)
        maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("/memory")]
        [start] = [int(fields[0].split("-")[0], 16) for fields in maps if int(fields[2], 16) == 0]
        with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
            own = 0
            for offset in written:
                pagemap.seek((start + offset) // mmap.PAGESIZE * 8)
                [entry] = struct.unpack("<Q", pagemap.read(8))
                own += entry >> 63 & 1 and not entry >> 61 & 1
    assert own == len(written), "pages that are written are the copy's own"
    assert faults < needed / 2, f"{faults} faults, for {needed} pages that are in place"
