"""What a wake must not show: a wrong clock, time that runs back, timers in a storm, connections that hang, instructions before all that is right."""
import time

from support import outside
from support.microvm import AUTO_RESUME, run
from support.waiting import until

# The requirement.
CLOCK_TOLERANCE = 0.05
SUSPENDED_SECONDS = 3


def clock_error(microvm, samples=25):
    """Seconds the guest's clock is surely off: the guest read it between the request and the answer, so what lies outside of these is an error. The
    narrowest of several counts."""
    best = None
    for _ in range(samples):
        before = time.time()
        guest = microvm.get("/clock")["unix"]
        after = time.time()
        if best is None or after - before < best[0]:
            best = (after - before, max(before - guest, guest - after, 0))
    return best[1]


def test_the_wall_clock_is_right_after_launch_and_wake(daemon, probe):
    with run(daemon, probe, idlePolicy=AUTO_RESUME) as microvm:
        assert clock_error(microvm) < CLOCK_TOLERANCE
        microvm.suspend()
        time.sleep(SUSPENDED_SECONDS)
        microvm.resume()
        assert clock_error(microvm) < CLOCK_TOLERANCE


def test_time_goes_on_and_nothing_storms(daemon, probe):
    with run(daemon, probe) as microvm:
        before = microvm.get("/clock")
        microvm.suspend()
        time.sleep(SUSPENDED_SECONDS)
        # Read back in the first answer after the wake: what was due at once is in it.
        microvm.resume()
        time.sleep(0.5)
        ticker, after, sampler = microvm.get("/ticker"), microvm.get("/clock"), microvm.get("/sampler")
        assert sampler["monotonic_went_back"] == 0
        assert after["monotonic"] > before["monotonic"]
        # The monotonic clock stood still while there was no machine, so timers have not become due meanwhile.
        slept = (after["unix"] - before["unix"]) - (after["monotonic"] - before["monotonic"])
        assert slept > SUSPENDED_SECONDS * 0.9
        assert ticker["largest_burst"] * ticker["interval_ms"] < SUSPENDED_SECONDS * 1000 * 0.9


def test_an_application_without_a_pause_never_sees_a_stale_clock(daemon, probe):
    """It takes samples without pause across the suspension: the last one before and the first one after are neighbours, and that first one is right."""
    with run(daemon, probe) as microvm:
        for _ in range(2):
            microvm.get("/sampler/hot?ms=20000")
            time.sleep(0.3)
            microvm.suspend()
            asleep = time.time()
            time.sleep(SUSPENDED_SECONDS)
            woken = time.time()
            microvm.resume()
            jump = microvm.get("/sampler")["jumps"][-1]
            before, after = jump["before"], jump["after"]
            assert after["index"] == before["index"] + 1, "nothing ran in between"
            assert before["wall"] < asleep + CLOCK_TOLERANCE
            assert after["wall"] > woken - CLOCK_TOLERANCE, "the first sample has the time of the wake"
            assert after["wall"] < time.time() + CLOCK_TOLERANCE
            assert before["random"] != after["random"]
            assert after["monotonic"] >= before["monotonic"]


def test_connections_to_the_outside_are_dead_rather_than_hung(daemon, probe):
    with outside.server() as server, run(daemon, probe) as microvm:
        microvm.get(f"/hold?host={outside.PEER}&port={server.port}")
        held = lambda: microvm.get("/held")["connections"][-1]
        until("the connection carries data", lambda: held()["bytes"] == len("welcome"))
        assert held()["ended"] is None
        microvm.suspend()
        until("the other end has heard", lambda: server.ended == ["ConnectionResetError"])
        time.sleep(1)
        woken = time.time()
        microvm.resume()
        until("the blocked read has failed", lambda: held()["ended"], 10)
        assert held()["ended"] != "end", "an orderly end would look like the whole answer"
        assert woken - CLOCK_TOLERANCE < held()["wall"] < woken + (time.time() - woken)
        # Within a second of the wake, by the guest's own clock: its first sample afterwards is the wake.
        wake = microvm.get("/sampler")["jumps"][-1]["after"]["wall"]
        assert held()["wall"] - wake < 1
        # New ones work.
        assert microvm.get(f"/connect?host={outside.PEER}&port={server.port}")["result"] == "ok"


def test_connections_within_the_guest_survive(daemon, probe):
    with run(daemon, probe) as microvm:
        microvm.get("/hold?host=127.0.0.1&port=9090")
        microvm.suspend().resume()
        assert microvm.get("/held")["connections"][-1]["ended"] is None


