"""Copies of one snapshot: nothing that must differ is shared, and nothing old is seen."""
import time

import pytest

from support.microvm import run

# A busy host answers late; a clock that was not set is off by the age of the snapshot.
CLOCK_TOLERANCE = 2


@pytest.fixture(scope="module")
def copies(daemon, probe):
    # The snapshot must be old enough for a stale clock to show.
    time.sleep(max(0, 3 * CLOCK_TOLERANCE - (time.time() - probe.describe()["updatedAt"].timestamp())))
    with run(daemon, probe) as first, run(daemon, probe) as second:
        yield first, second


@pytest.mark.parametrize("path, member", [("/urandom", "random"), ("/boot-id", "boot_id"), ("/hostname", "hostname")])
def test_different(copies, path, member):
    first, second = (copy.get(path)[member] for copy in copies)
    assert first and second and first != second


def test_clocks_are_right(copies):
    for copy in copies:
        before = time.time()
        clock = copy.get("/clock")["unix"]
        assert before - CLOCK_TOLERANCE < clock < time.time() + CLOCK_TOLERANCE


def test_no_instruction_before_the_clock_and_the_entropy(copies):
    """The sampler wrote time and randomness every millisecond. Up to the snapshot both copies have the same samples; the first one after the
    jump of the clock is right in time and differs."""
    jumps = [copy.get("/sampler")["largest"] for copy in copies]
    for copy, jump in zip(copies, jumps):
        started = copy.answer["startedAt"].timestamp()
        assert jump["seconds"] > CLOCK_TOLERANCE, "the sampler ran across the snapshot"
        assert jump["after"]["wall"] > started - CLOCK_TOLERANCE, "the first sample after the restore has the right time"
    first, second = jumps
    assert first["before"] == second["before"], "the last sample before is the snapshot's"
    assert first["after"]["index"] == second["after"]["index"] == first["before"]["index"] + 1
    assert first["after"]["random"] != second["after"]["random"], "the first randomness after the restore is fresh"


def test_no_random_value_twice(copies):
    samples = []
    for copy in copies:
        snapshot = copy.get("/sampler")["largest"]["before"]["index"]
        samples.append({sample["random"] for sample in copy.get("/urandom-log")["samples"] if sample["index"] > snapshot})
    assert all(len(own) > 10 for own in samples)
    assert not samples[0] & samples[1]


def test_memory_is_a_private_copy(copies):
    first, second = copies
    before = second.get("/counter?add=0")["counter"]
    first.get("/counter?add=5")
    assert second.get("/counter?add=0")["counter"] == before


def test_disk_is_a_private_copy(copies):
    first, second = copies
    assert first.request("PUT", "/files/mine", data=b"first").status_code == 200
    assert second.request("GET", "/files/mine").status_code == 404
