"""Measuring where there is one CPU for all, as in the lab: whoever measures does not work beside what is measured, and does not have it work by asking."""
import contextlib
import json
import time
from datetime import datetime

LOOKS_EVERY, WITHIN = 0.25, 120


class Events:
    """The daemon's event stream from now on. Reading it costs the daemon nothing, where GetMicrovm again and again would."""

    def __init__(self, daemon):
        self.path = daemon.data / "events/events.jsonl"
        self.offset, self.rest, self.entries = self.path.stat().st_size, b"", []

    def entered(self, state, microvm=None):
        """Waits until the MicroVM, or any, has, and returns when that was (Unix time)."""
        deadline = time.monotonic() + WITHIN
        while True:
            of_it = [entry for entry in self.entries if microvm in (None, entry["microvm"])]
            if found := [entry for entry in of_it if entry["to"] == state]:
                return datetime.fromisoformat(found[0]["time"]).timestamp()
            assert time.monotonic() < deadline and not any(entry["to"] == "TERMINATED" for entry in of_it), f"not {state}: {of_it}"
            time.sleep(LOOKS_EVERY)
            self.read()

    def read(self):
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        self.entries += [event for event in map(json.loads, lines) if event["event"] == "microvm"]

    @contextlib.contextmanager
    def before_the_answer(self, client, state):
        """Calls of this client have their answers read when a MicroVM has entered the state: making sense of an answer takes as much CPU as a launch."""
        def wait(**_):
            self.entered(state)
        client.meta.events.register("before-parse", wait)
        try:
            yield
        finally:
            client.meta.events.unregister("before-parse", wait)
