"""Random operations by several clients on real guests while the daemon is killed at random. EMBERBOX_STORM_SECONDS says for how long; `make test
SUITE=storm` is the long form."""
import os

from support.storm import Storm

SECONDS = float(os.environ.get("EMBERBOX_STORM_SECONDS", 90))


def test_nothing_acknowledged_is_lost_in_a_storm(daemon, probe):
    storm = Storm(daemon, probe, seed=os.environ.get("EMBERBOX_STORM_SEED"))
    storm.rage(SECONDS)
    assert storm.deaths >= SECONDS / 20
    assert storm.leaks() == []
