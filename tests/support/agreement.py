"""Records = processes = namespaces = files: what the API says of MicroVMs against what this machine holds of them."""
from . import leaks
from .waiting import until

# network.pool of the configuration: cells that wait for a launch.
POOL = 4
SETTLED = ("RUNNING", "SUSPENDED", "TERMINATED")


def states(daemon):
    pages = daemon.microvms.get_paginator("list_microvms").paginate()
    return {item["microvmId"].removeprefix("microvm-"): item["state"] for page in pages for item in page["items"]}


def settle(daemon, seconds=60):
    """Waits until no MicroVM is in a state that ends by itself."""
    def settled():
        found = states(daemon)
        # In a tuple, which is true without any MicroVM, too.
        return (found,) if all(state in SETTLED for state in found.values()) else None
    return until("every MicroVM is settled", settled, seconds, 0.03)[0]


def disagreements(daemon, of):
    """What does not fit the states in `of`, in words."""
    found, data = [], daemon.data / "host"
    live = {name for name, state in of.items() if state != "TERMINATED"}
    running = {name for name, state in of.items() if state == "RUNNING"}
    found += [f"files without a MicroVM: {name}" for name in leaks.entries(data / "machines") if name not in live]
    found += [f"a MicroVM without files: {name}" for name in live - set(leaks.entries(data / "machines"))]
    for name in live:
        processes = leaks.virtual_machines_in(data / "machines" / name)
        if len(processes) != (name in running):
            found.append(f"{name} is {of[name]} and has processes {processes}")
        files = set(leaks.entries(data / "machines" / name))
        left = files & ({"snapshot.new", "resuming", "snapshot"} if name in running else {"snapshot.new", "resuming", "resumed"})
        found += [f"{name} is {of[name]} and has {file}" for file in left]
        if name not in running and "snapshot" not in files:
            found.append(f"{name} is SUSPENDED and has no snapshot")
    if (machines := len(leaks.virtual_machines_in(daemon.data))) != len(running):
        found.append(f"{machines} virtual machines for {len(running)} MicroVMs")
    # A start takes cells of machines that a crash ended into the pool, beyond its size; a leak at each crash soon exceeds twice of it.
    if not len(running) + POOL <= (cells := len(leaks.interfaces_of(daemon.data))) <= len(running) + 2 * POOL:
        found.append(f"{cells} cells for {len(running)} MicroVMs and a pool of {POOL}")
    found += [f"half-made: {name}" for name in leaks.entries(data / "work")]
    return found


def agree(daemon, seconds=20):
    """Waits until nothing disagrees, and returns the states."""
    of, last = {}, []

    def nothing():
        # Anew each time: a MicroVM that is being woken is SUSPENDED to the API, too.
        of.clear()
        of.update(settle(daemon))
        last[:] = disagreements(daemon, of)
        return not last
    try:
        until("records and this machine agree", nothing, seconds, 0.1)
    except TimeoutError:
        raise AssertionError("\n  ".join(["records and this machine do not agree:", *last])) from None
    return of
