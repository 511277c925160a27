"""A file system whose device holds every write, or read, for as long as it is told: the device mapper's `delay` target, by its own ioctls, for the lab has no dmsetup."""
import fcntl
import os
import stat
import struct
import subprocess
import tempfile
from pathlib import Path

MIB = 1 << 20
SECTOR = 512
CONTROL = Path("/dev/mapper/control")
# linux/dm-ioctl.h
HEADER = struct.Struct("=3I7IQ128s129s7s")
TARGET = struct.Struct("=QQiI16s")
DEV_CREATE, DEV_REMOVE, DEV_SUSPEND, TABLE_LOAD = 3, 4, 6, 9
SUSPEND_FLAG, SKIP_LOCKFS_FLAG = 1 << 1, 1 << 10
VERSION = (4, 0, 0)


def device_mapper(command, name, flags=0, target=b""):
    """One ioctl; returns the device's number."""
    size = HEADER.size + len(target)
    request = bytearray(HEADER.pack(*VERSION, size, HEADER.size, int(bool(target)), 0, flags, 0, 0, 0, name.encode(), b"", b"") + target)
    # _IOWR of a fixed-size header, whatever follows it.
    number = 3 << 30 | HEADER.size << 16 | 0xFD << 8 | command
    with open(CONTROL, "rb") as control:
        fcntl.ioctl(control, number, request)
    return HEADER.unpack_from(request)[10]


class SlowDisk:
    """Taken away whatever happens. On a disk, not in memory as `/tmp` may be."""

    def __init__(self, mib):
        self.directory = Path(tempfile.mkdtemp(prefix="emberbox-slow-", dir="/var/tmp"))
        self.image, self.device, self.mount = (self.directory / name for name in ("image", "device", "mount"))
        self.name, self.mib = self.directory.name, mib
        self.mount.mkdir()

    def __enter__(self):
        with open(self.image, "wb") as file:
            file.truncate(self.mib * MIB)
        subprocess.run(["modprobe", "--all", "loop", "dm-delay"], check=True)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", self.image], check=True)
        found = subprocess.run(["losetup", "--find", "--show", self.image], check=True, capture_output=True, text=True)
        self.below = found.stdout.strip()
        number = device_mapper(DEV_CREATE, self.name)
        self.hold(0)
        os.mknod(self.device, stat.S_IFBLK | 0o600, os.makedev(number >> 8 & 0xFFF, number & 0xFF))
        subprocess.run(["mount", self.device, self.mount], check=True)
        return self

    def hold(self, write_ms, read_ms=0):
        """From now on every write and every flush takes so long, and every read, however many there are at once. What waits already goes on at once."""
        argument = " ".join(f"{self.below} 0 {delay}" for delay in (read_ms, write_ms, write_ms))
        # Padded to what comes after it, as the kernel wants targets aligned.
        text = argument.encode().ljust((len(argument) // 8 + 1) * 8, b"\0")
        target = TARGET.pack(0, self.mib * MIB // SECTOR, 0, TARGET.size + len(text), b"delay") + text
        device_mapper(TABLE_LOAD, self.name, target=target)
        # Without freezing the file system, which would wait for all that it has to write.
        device_mapper(DEV_SUSPEND, self.name, SUSPEND_FLAG | SKIP_LOCKFS_FLAG)
        device_mapper(DEV_SUSPEND, self.name)

    def __exit__(self, *_):
        self.hold(0)
        subprocess.run(["umount", self.mount], check=True)
        device_mapper(DEV_REMOVE, self.name)
        subprocess.run(["losetup", "--detach", self.below], check=True)
        self.device.unlink()
        self.image.unlink()
        (self.directory / "daemon.log").unlink(missing_ok=True)
        self.mount.rmdir()
        self.directory.rmdir()
