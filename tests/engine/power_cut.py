#!/usr/bin/env python3
"""Power cuts during a suspend, and a reboot: one story over several boots of the lab, which runs this again after each (docs/lab.md).

Before a cut a suspended MicroVM keeps something in memory and on disk, and another is told to suspend. After it the first wakes with everything it kept,
whatever happened to the second; the second is suspended, and then wakes with everything too, or is TERMINATED with a reason. What had been acknowledged as
SUSPENDED is suspended. At the end nothing is left behind.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon  # noqa: E402
from support.images import Images, hooks  # noqa: E402
from support.microvm import AUTO_RESUME, Microvm, run  # noqa: E402
from support.waiting import until  # noqa: E402

HOME = Path("/var/lib/emberbox-power-cut")
BOOT = int(os.environ["EMBERBOX_LAB_BOOT"])
# Seconds from SuspendMicrovm to the cut: while hooks and freeze run, while memory is written, and the moment SUSPENDED is answered.
ACKNOWLEDGED = "acknowledged"
MOMENTS = (0.1, 0.3, 0.6, 1.0, 1.5, 2.5, ACKNOWLEDGED) if os.environ.get("EMBERBOX_LAB_FULL") else (0.6, ACKNOWLEDGED)


def tell(text):
    print(f"boot {BOOT}: {text}", flush=True)


class Story:
    """What must be known after the cut, on disk before it."""

    def __init__(self):
        self.path = HOME / "story.json"
        self.known = json.loads(self.path.read_text()) if self.path.exists() else {}

    def write(self):
        with open(self.path.with_suffix(".new"), "w") as file:
            json.dump(self.known, file)
            file.flush()
            os.fsync(file.fileno())
        self.path.with_suffix(".new").rename(self.path)
        os.sync()


def remember(microvm):
    content = f"{microvm.id} was here ".encode() * 500
    assert microvm.request("PUT", "/files/kept", data=content).status_code == 200
    return {"answer": {"microvmId": microvm.id, "endpoint": microvm.host}, "counter": microvm.get("/counter?add=41")["counter"],
            "checksum": microvm.get("/touch?mib=30")["checksum"], "content": content.decode()}


def has_everything(microvm, kept):
    assert microvm.get("/counter?add=0")["counter"] == kept["counter"]
    touched = microvm.get("/touched")
    assert touched["intact"] and touched["checksum"] == kept["checksum"]
    assert microvm.request("GET", "/files/kept").content.decode() == kept["content"]


def begin(daemon, story):
    image = Images(daemon).probe("probe", hooks=hooks(("ready",), ("run", "suspend", "resume"))).built()
    tell("the image is built")
    microvm = run(daemon, image, idlePolicy=AUTO_RESUME)
    story.known |= {"image": image.arn, "listen": daemon.listen, "ingress_port": daemon.ingress_port, "kept": remember(microvm)}
    microvm.suspend()


def cut_within_a_suspend(daemon, story, moment):
    victim = run(daemon, story.known["image"], idlePolicy=AUTO_RESUME)
    story.known["victim"] = remember(victim) | {"moment": moment}
    story.write()
    victim.client.suspend_microvm(microvmIdentifier=victim.id)
    if moment == ACKNOWLEDGED:
        victim.wait("SUSPENDED")
    else:
        time.sleep(moment)
    tell(f"power cut: {moment if moment == ACKNOWLEDGED else f'{moment} s after SuspendMicrovm'}; the API says {victim.state}")
    subprocess.run(["lab-power", "cut"], check=True)


def after_the_cut(daemon, story):
    kept = Microvm(daemon, story.known["kept"]["answer"])
    assert kept.state == "SUSPENDED", kept.describe()
    has_everything(kept, story.known["kept"])
    kept.suspend()
    victim, moment = Microvm(daemon, story.known["victim"]["answer"]), story.known["victim"]["moment"]
    until("the other one is settled", lambda: victim.state in ("SUSPENDED", "TERMINATED"))
    shown = victim.describe()
    if shown["state"] == "TERMINATED":
        assert moment != ACKNOWLEDGED, f"it was acknowledged as SUSPENDED and is lost: {shown}"
        assert shown["stateReason"], "lost without a reason"
        tell(f"the one that was being suspended is lost, and says so: {shown['stateReason']}")
    else:
        has_everything(victim, story.known["victim"])
        tell("the one that was being suspended is suspended, and woke with everything")
        victim.terminate()


def reboot(daemon, story):
    running = run(daemon, story.known["image"])
    story.known["running"] = {"microvmId": running.id, "endpoint": running.host}
    story.write()
    daemon.stop()
    tell("reboot with one suspended and one running")
    subprocess.run(["lab-power", "reboot"], check=True)


def after_the_reboot(daemon, story):
    running = Microvm(daemon, story.known["running"])
    until("the one that ran is settled", lambda: running.state in ("SUSPENDED", "TERMINATED"))
    shown = running.describe()
    assert shown["state"] == "SUSPENDED" or shown["stateReason"], shown
    kept = Microvm(daemon, story.known["kept"]["answer"])
    assert kept.state == "SUSPENDED"
    has_everything(kept, story.known["kept"])
    tell(f"after the reboot: the one that ran is {shown['state']} ({shown.get('stateReason')}), the suspended one woke with everything")


def main():
    HOME.mkdir(exist_ok=True)
    story, daemon = Story(), Daemon(HOME)
    if BOOT > 1:
        daemon.listen, daemon.ingress_port = story.known["listen"], story.known["ingress_port"]
    daemon.start()
    try:
        if BOOT == 1:
            begin(daemon, story)
        elif BOOT <= len(MOMENTS) + 1:
            after_the_cut(daemon, story)
        if BOOT <= len(MOMENTS):
            cut_within_a_suspend(daemon, story, MOMENTS[BOOT - 1])
        elif BOOT == len(MOMENTS) + 1:
            reboot(daemon, story)
        after_the_reboot(daemon, story)
    except BaseException:
        daemon.show_log()
        raise
    daemon.end()
    tell(f"{len(MOMENTS)} power cuts and a reboot: nothing acknowledged was lost, nothing is left behind")


if __name__ == "__main__":
    main()
