"""Waiting for states and reading what the daemon says of itself, as several benchmarks do."""
import json
import os
import time
from pathlib import Path

POLL_SECONDS = 0.005


def milliseconds_since(began):
    return (time.perf_counter() - began) * 1000


def wait_for(microvm, state):
    while microvm.state != state:
        time.sleep(POLL_SECONDS)


def disk_kib(directory):
    return sum(path.lstat().st_blocks for path in Path(directory).rglob("*")) / 2


def steps_of(event):
    """[(name, ms, whose)] of a daemon's event."""
    steps = json.loads(event["steps"]) if isinstance(event["steps"], str) else event["steps"]
    return [(step["name"], step["ms"], step["of"]) for step in steps["steps"]]


def say_where(daemon):
    engine = next((event for event in daemon.events() if event.get("message") == "engine chosen"), {})
    print(f"  {os.cpu_count()} processors; {engine.get('identity')}")
