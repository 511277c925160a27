"""Samples, and the report every benchmark makes of them: a table for people, and target/bench/<suite>.json with flat keys."""
import collections
import json
import math

from support import paths


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


class Report:
    """`targets` are of a median: at most. `ratios` are (over, under, target, whether the target is the least or the most); of what was not measured there
    is none."""

    def __init__(self, suite, unit, targets=None, ratios=()):
        self.path, self.unit, self.targets, self.ratios = paths.ROOT / f"target/bench/{suite}.json", unit, targets or {}, ratios

    def write(self, samples):
        flat = {}
        print(f"\n  {'what':44} {'p50':>10} {'p99':>10} {'n':>6}  target")
        for name in sorted(samples, key=lambda name: ("." in name, name)):
            flat |= self.measured(samples, name)
        for over, under, target, sense in self.ratios:
            if not (samples.get(over) and samples.get(under)):
                continue
            ratio = samples.p(over, 0.5) / samples.p(under, 0.5)
            flat[f"ratio.{over}/{under}"] = round(ratio, 2)
            met = {">=": ratio >= target, "<=": ratio <= target}[sense] if target else None
            note = f"{sense} {target}: {'met' if met else 'MISSED'}" if target else ""
            print(f"  {over + ' / ' + under:56} {ratio:9.2f}x {'':5}  {note}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(flat, indent=1) + "\n")
        print(f"\n  {self.unit}; {self.path.relative_to(paths.ROOT)}")

    def measured(self, samples, name):
        p50, p99, count = samples.p(name, 0.5), samples.p(name, 0.99), len(samples[name])
        target = self.targets.get(name)
        note = f"< {target}: {'met' if p50 < target else 'MISSED'}" if target else ""
        print(f"  {name:44} {p50:10.2f} {p99:10.2f} {count:6}  {note}")
        return {f"{name}.p50": round(p50, 3), f"{name}.p99": round(p99, 3), f"{name}.n": count}


def in_turn(what, number):
    """Another one is first each time: what the first of a round may pay for the others evens out."""
    turns = list(what.items())
    start = number % len(turns)
    return turns[start:] + turns[:start]
