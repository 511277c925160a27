"""Flipped bytes, and how a MicroVM that cannot be brought back says so."""
import os


def flip(path):
    """Changes one byte where the file holds data; returns what undoes it."""
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        # In the middle of the first data, where that is: sparse files begin with holes.
        at = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        at += min(size - at, 4096) // 2

        def change(to):
            file = open(path, "r+b")
            with file:
                file.seek(at)
                file.write(to)
        before = os.pread(file.fileno(), 1, at)
    change(bytes([before[0] ^ 0x21]))
    return lambda: change(before)


def ended_with(microvm, name):
    microvm.wait("TERMINATED")
    reason = microvm.describe()["stateReason"]
    assert name in reason and "damaged" in reason, reason
    assert microvm.process() is None
    return reason
