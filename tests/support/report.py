"""What benchmarks share: samples with percentiles, progress, the daemon's steps, and the table with its file of flat keys."""
import collections
import json
import math
import os
import time

from . import paths

POLL_SECONDS = 0.005


class Samples(collections.defaultdict):
    def __init__(self):
        super().__init__(list)

    def p(self, name, fraction):
        """Nearest rank; the median of an even number is the mean of the middle two."""
        ordered = sorted(self[name])
        if fraction == 0.5 and len(ordered) % 2 == 0:
            return (ordered[len(ordered) // 2 - 1] + ordered[len(ordered) // 2]) / 2
        return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


class Progress:
    def __init__(self, what, total):
        self.what, self.total, self.done = what, total, 0

    def __call__(self):
        self.done += 1
        print(f"\r  {self.what}: {self.done}/{self.total} ", end="\n" if self.done == self.total else "", flush=True)


def milliseconds_since(began):
    return (time.perf_counter() - began) * 1000


def wait_for(microvm, state):
    while microvm.state != state:
        time.sleep(POLL_SECONDS)


def disk_kib(directory):
    return sum(path.lstat().st_blocks for path in directory.rglob("*")) / 2


def steps_of(event):
    """[(name, ms, whose)] of a daemon's event."""
    steps = json.loads(event["steps"]) if isinstance(event["steps"], str) else event["steps"]
    return [(step["name"], step["ms"], step["of"]) for step in steps["steps"]]


def say_where(daemon):
    engine = next((event for event in daemon.events() if event.get("message") == "engine chosen"), {})
    print(f"  {os.cpu_count()} processors; {engine.get('identity')}")


def report(suite, samples, targets=None, ratios=(), more=None):
    """Prints the table and writes target/bench/<suite>.json: `<name>.p50`, `.p99`, `.n`, the ratios, and `more` as it is. `ratios` are (over, under, least)."""
    flat, targets = {}, targets or {}
    print(f"\n  {'what':44} {'p50':>10} {'p99':>10} {'n':>4}  target")
    for name in sorted(samples, key=lambda name: ("." in name, name)):
        p50, p99, count = samples.p(name, 0.5), samples.p(name, 0.99), len(samples[name])
        flat |= {f"{name}.p50": round(p50, 3), f"{name}.p99": round(p99, 3), f"{name}.n": count}
        target = targets.get(name)
        note = f"< {target}: {'met' if p50 < target else 'MISSED'}" if target else ""
        print(f"  {name:44} {p50:10.1f} {p99:10.1f} {count:4}  {note}")
    for over, under, least in ratios:
        ratio = samples.p(over, 0.5) / samples.p(under, 0.5)
        flat[f"ratio.{over}/{under}"] = round(ratio, 2)
        note = f">= {least}: {'met' if ratio >= least else 'MISSED'}" if least else ""
        print(f"  {over + ' / ' + under:44} {ratio:9.2f}x {'':15}  {note}")
    for name, value in (more or {}).items():
        flat[name] = value
        print(f"  {name:44} {value:10}")
    output = paths.ROOT / f"target/bench/{suite}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(flat, indent=1) + "\n")
    print(f"\n  milliseconds unless the name says otherwise; {output.relative_to(paths.ROOT)}")
