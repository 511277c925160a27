"""Waiting with a deadline and a reason."""
import os
import time

# Deadlines are of a two-core machine that emulates its guests. The lab emulates that machine too, and says how much longer things take there.
PATIENCE = float(os.environ.get("EMBERBOX_TEST_PATIENCE", 1))


def until(what, condition, seconds=60, pause=0.05):
    """Calls `condition` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds * PATIENCE:g} s")
        time.sleep(pause)
