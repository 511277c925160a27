"""Disk and network of the engines against each other, measured in the guest by the probe: the engines take turns in one boot, so that what the machine is
busy with meets both.

block_read_mib_s, block_write_mib_s          1 MiB pieces, one after the other, around the guest's page cache; a write is on the disk at its end
block_fresh_write_mib_s                      the same into clusters that the overlay does not have yet
block_random_read_iops, ..write_iops         4 KiB at random places, one thread
block_parallel_read_iops                     the same by eight threads at once
net_in_mib_s, net_out_mib_s                  one TCP connection to a server beside the host, through the cell and its rules

The files are in the host's page cache: what is compared is what the engine does, not what the disk does.

net_out_mib_s has two steady states under emulation. The guest's TCP sizes its frames by the round trip: beyond some milliseconds it sends two segments at a
time, and as each frame costs about the same, a fraction of the bytes. A machine that is busy with something else puts either engine there.
"""
import contextlib
import socket
import threading

from support import outside
from support.images import Images
from support.microvm import run

from .report import Progress, in_turn

FILE_MIB = 16
FRESH_MIB = 8
RANDOM_OPERATIONS = 500
PARALLEL = 8
TRANSFER_MIB = 16
PIECE = 1 << 20
# Of an emulated machine that others use too.
SERVER_TIMEOUT = ANSWER_WITHIN = 240

# Name: what the probe is asked, and what of its answer counts.
SEQUENTIAL, RANDOM = f"name=io&mib={FILE_MIB}", f"name=io&mib={FILE_MIB}&block_kib=4&random=1&operations={RANDOM_OPERATIONS}"
DISK = {
    "block_read_mib_s": (SEQUENTIAL, "mib"),
    "block_write_mib_s": (f"{SEQUENTIAL}&write=1", "mib"),
    "block_fresh_write_mib_s": (f"name=fresh-{{round}}&mib={FRESH_MIB}&write=1", "mib"),
    "block_random_read_iops": (RANDOM, "operations"),
    "block_random_write_iops": (f"{RANDOM}&write=1", "operations"),
    "block_parallel_read_iops": (f"{RANDOM}&threads={PARALLEL}", "operations"),
}
NETWORK = {"net_in_mib_s": "", "net_out_mib_s": "&out=1"}
NAMES = [*DISK, *NETWORK]
READS = [name for name in DISK if "read" in name]


def image(daemon):
    # The probe's sampler would take its share of the guest's CPU.
    return Images(daemon).probe("io", {"PROBE_SAMPLER": "off"})


def measure(samples, images, repetitions):
    """`images`: {engine: (daemon, image)}."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(outside.network())
        ports = {"net_in_mib_s": Server(network, send).port, "net_out_mib_s": Server(network, receive).port}
        microvms = {engine: stack.enter_context(run(daemon, image)) for engine, (daemon, image) in images.items()}
        for microvm in microvms.values():
            # The file is there, with clusters of its own.
            microvm.get(f"/disk?{SEQUENTIAL}&write=1")
        # What was measured is shown even when the rest could not be.
        stack.push(lambda kind, *_: kind and print(f"\n{dict(samples)}"))
        done = Progress("disk and network, engine by engine", repetitions)
        for number in range(repetitions):
            turns = in_turn(microvms, number)
            for name, (query, unit) in DISK.items():
                for engine, microvm in turns:
                    samples[f"{name}.{engine}"].append(rate(microvm.get(f"/disk?{query.format(round=number)}", timeout=ANSWER_WITHIN), unit))
            for name, query in NETWORK.items():
                for engine, microvm in turns:
                    answer = microvm.get(f"/transfer?host={outside.PEER}&port={ports[name]}&mib={TRANSFER_MIB}{query}", timeout=ANSWER_WITHIN)
                    samples[f"{name}.{engine}"].append(rate(answer, "mib"))
            done()


def rate(answer, unit):
    amount = answer["operations"] if unit == "operations" else answer["bytes"] / (1 << 20)
    return amount / answer["seconds"]


class Server:
    """Serves each connection by `work` until that, or its guest, ends."""

    def __init__(self, network, work):
        self.listener, self.work = network.listener(), work
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.settimeout(SERVER_TIMEOUT)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        # The guest closes when it has enough.
        with connection, contextlib.suppress(OSError):
            self.work(connection)


def send(connection):
    piece = bytes(PIECE)
    while True:
        connection.sendall(piece)


def receive(connection):
    piece = bytearray(PIECE)
    while connection.recv_into(piece):
        pass
