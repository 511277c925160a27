"""Many copies of one snapshot alive at once: each is itself in all that must differ, answers as itself, and nothing of them is left. EMBERBOX_CLONES says how
many; 100 of them need a lab of 8 GiB (`xtask lab --memory 8192`)."""
import concurrent.futures
import os
import re

import pytest

from support import leaks
from support.daemon import Daemon
from support.images import Images
from support.microvm import launch
from support.waiting import until

CLONES = int(os.environ.get("EMBERBOX_CLONES", 12))
# As many restores share the CPU at a time: an emulated one, and the daemon waits for a guest's answer for so long only.
LAUNCHED_AT_ONCE = 6
POOL = 4
# Memory is promised, not taken: clones share what none of them has changed.
CONFIGURATION = f"[capacity]\noversubscription = 100.0\n\n[network]\npool = {POOL}\n"
# Where a machine's generation identifier is (crates/vmm/src/arch/x86_64/layout.rs), and what the kernel counts when it is told of a new one.
GENERATION_ID, GENERATION_BYTES, GENERATION_INTERRUPT = 0x000F_F000, 16, "ACPI:Ged"


@pytest.fixture(scope="module")
def host():
    """A daemon of its own: 100 machines are all it has."""
    with Daemon(config=CONFIGURATION).serving() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def clones(host):
    # A sampler in each would leave no CPU to anything else. With all capabilities the guest's interrupts can be seen.
    image = Images(host).probe("clones", {"PROBE_SAMPLER": "off"}, additionalOsCapabilities=["ALL"]).built()
    started = []
    for first in range(0, CLONES, LAUNCHED_AT_ONCE):
        wave = [launch(host, image) for _ in range(min(LAUNCHED_AT_ONCE, CLONES - first))]
        started += [microvm.wait("RUNNING") for microvm in wave]
        print(f"{len(started)} run", flush=True)
    return started


@pytest.fixture(scope="module")
def seen(clones):
    """What each says of itself, by the number it was given; the connection of each is kept."""
    def look(number):
        microvm = clones[number]
        assert microvm.get(f"/counter?add={number + 1}")["counter"] == number + 1
        names = {path: microvm.get(f"/{path}") for path in ("boot-id", "hostname", "urandom", "interrupts")}
        return {"boot_id": names["boot-id"]["boot_id"], "machine_id": names["boot-id"]["machine_id"], "hostname": names["hostname"]["hostname"],
                "file": names["hostname"]["file"], "random": names["urandom"]["random"], "interrupts": names["interrupts"]}
    with concurrent.futures.ThreadPoolExecutor(LAUNCHED_AT_ONCE) as pool:
        return list(pool.map(look, range(len(clones))))


def test_all_of_them_run_at_once(host, clones):
    assert len({microvm.id for microvm in clones}) == CLONES
    assert set(host.live_microvms()) == {microvm.id for microvm in clones}
    processes = [microvm.process() for microvm in clones]
    assert all(processes) and len(set(processes)) == CLONES
    assert len({microvm.host for microvm in clones}) == CLONES, "an endpoint each"


@pytest.mark.parametrize("name", ["boot_id", "hostname", "random"])
def test_no_two_are_alike(seen, name):
    values = [one[name] for one in seen]
    assert all(values)
    assert len(set(values)) == CLONES


def test_a_host_name_is_the_same_everywhere_in_its_guest(seen):
    assert all(one["hostname"] == one["file"] for one in seen)


def test_random_bytes_have_nothing_in_common(seen):
    """Not only are they different: no eight bytes of one are in another."""
    pieces = [one["random"][at:at + 16] for one in seen for at in range(0, len(one["random"]), 16)]
    assert len(set(pieces)) == len(pieces) == CLONES * 8


def test_each_has_a_generation_of_its_own_and_its_kernel_was_told(clones, seen):
    if 'engine: "kvm"' not in clones[0].daemon.engine():
        pytest.skip("QEMU's machine has no generation identifier; the agent reseeds there")
    generations = [generation(microvm.process()) for microvm in clones]
    assert all(any(one) for one in generations)
    assert len(set(generations)) == CLONES
    told = [one["interrupts"].get(GENERATION_INTERRUPT) for one in seen]
    assert told == [1] * CLONES, f"{told}; the interrupts of the first: {seen[0]['interrupts']}"


def generation(pid):
    """The identifier in the guest's memory, which is the mapping of the image's memory file."""
    for line in open(f"/proc/{pid}/maps"):
        found = re.match(r"([0-9a-f]+)-[0-9a-f]+ rw-p 00000000 \S+ \d+ +\S*/memory", line)
        if found:
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(int(found[1], 16) + GENERATION_ID)
                return memory.read(GENERATION_BYTES)
    raise AssertionError(f"process {pid} maps no snapshot's memory")


def test_each_endpoint_leads_to_its_own_guest(clones, seen):
    for number, microvm in enumerate(clones):
        assert microvm.get("/counter?add=0")["counter"] == number + 1
        assert microvm.get("/hostname")["hostname"] == seen[number]["hostname"]


def test_what_one_writes_no_other_sees(clones, seen):
    first, last = clones[0], clones[-1]
    assert first.request("PUT", "/files/mine", data=b"first").status_code == 200
    assert last.request("GET", "/files/mine").status_code == 404


def test_nothing_is_left_of_them(host, clones, seen):
    """Last: it ends them."""
    processes = [microvm.process() for microvm in clones]
    for microvm in clones:
        microvm.session.close()
        host.microvms.terminate_microvm(microvmIdentifier=microvm.id)
    for microvm in clones:
        microvm.wait("TERMINATED")
    until("their processes are gone", lambda: not [pid for pid in processes if os.path.exists(f"/proc/{pid}")])
    until("their files are gone", lambda: not leaks.entries(host.data / "host/machines"))
    # Those of the pool stay for launches to come; when the daemon has ended, they have to be gone as well.
    until("their links are gone", lambda: len(leaks.interfaces_of(host.data)) <= POOL)
