"""Capabilities of the application's container."""
from support.images import hooks
from support.microvm import run

# What containers usually have; what would let the application at the guest's kernel is not in it.
CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_NET_ADMIN, CAP_SYS_TIME = 21, 16, 19, 12, 25


def held(microvm):
    mask = int(microvm.get("/caps")["cap_eff"], 16)
    return {number for number in range(64) if mask >> number & 1}


def test_restricted_and_all(daemon, images, probe):
    everything = images.probe("all-capabilities", additionalOsCapabilities=["ALL"], hooks=hooks())
    with run(daemon, probe) as microvm:
        shown = microvm.get("/caps")
        assert shown["uid"] == 0
        dangerous = {CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_NET_ADMIN, CAP_SYS_TIME}
        assert held(microvm) and not held(microvm) & dangerous
        assert int(shown["cap_bnd"], 16) == int(shown["cap_eff"], 16)
    with run(daemon, everything.built()) as microvm:
        assert dangerous <= held(microvm)
    everything.delete()
