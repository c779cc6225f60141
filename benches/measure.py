"""Runs contenders in turn and compares what they cost.

One sample is a list of commands, run one after the other. User and system seconds and the peak of resident memory are
the kernel's own accounting of each child (wait4); wall is a monotonic clock around each of them. Samples are taken in
turns (A B C A B C ...), and a ratio is the median of the ratios of each turn, so that a machine that gets slower or
faster in between does not decide.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

ONE = Path(__file__).with_name("one.py")


@dataclass
class Cost:
    user: float = 0.0
    system: float = 0.0
    wall: float = 0.0
    peak: float = 0.0  # KiB

    @property
    def cpu(self):
        return self.user + self.system


@dataclass
class Contender:
    name: str
    commands: Callable[[], list]  # the command lines of one sample
    prepare: Callable[[], None] = lambda: None  # before each sample, not measured
    cold: bool = False  # whether the page cache is dropped before


def say(text):
    print(text, file=sys.stderr, flush=True)


def drop_caches():
    """Drops the page cache; ends the run where that is not possible, because a figure without it means nothing."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3\n")
    except OSError as error:
        sys.exit(f"the page cache cannot be dropped ({error}): this figure needs root")


def run(commands, environment=None):
    """Runs the commands one after the other; what they cost together. A function among them is not measured."""
    cost = Cost()
    for command in commands:
        if callable(command):
            command()
            continue
        with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryFile("w+") as costs:
            launcher = [sys.executable, "-I", "-S", ONE, str(costs.fileno()), *map(str, command)]
            ended = subprocess.run(
                launcher, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=[costs.fileno()]
            )
            if ended.returncode != 0:
                log.seek(0)
                sys.exit(f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{log.read()}")
            costs.seek(0)
            user, system, wall, peak = map(float, costs.read().split())
        cost.user += user
        cost.system += system
        cost.wall += wall
        cost.peak = max(cost.peak, peak)
    return cost


def alternate(contenders, runs, environment=None):
    """`runs` samples of each contender, in turns; a first turn is not counted."""
    samples = {contender.name: [] for contender in contenders}
    for turn in range(runs + 1):
        for contender in contenders:
            contender.prepare()
            # What others wrote is not to be written while this one is measured.
            os.sync()
            if contender.cold:
                drop_caches()
            cost = run(contender.commands(), environment)
            counted = "" if turn else " (not counted)"
            say(
                f"  {contender.name}: {cost.user:.2f} user, {cost.system:.2f} system, {cost.wall:.2f} wall, "
                f"{cost.peak / 1024:.0f} MiB{counted}"
            )
            if turn:
                samples[contender.name].append(cost)
    return samples


def median(samples, of):
    return statistics.median(of(cost) for cost in samples)


def ratio(samples, name, other, of):
    """The median, the smallest and the largest of the ratios of each turn."""
    pairs = [of(a) / max(of(b), 1e-9) for a, b in zip(samples[name], samples[other])]
    return statistics.median(pairs), min(pairs), max(pairs)


def costs_table(samples):
    print("| | user s | system s | CPU s | wall s (smallest to largest) | peak MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, costs in samples.items():
        walls = [cost.wall for cost in costs]
        print(
            f"| {name} | {median(costs, lambda c: c.user):.2f} | {median(costs, lambda c: c.system):.2f} "
            f"| {median(costs, lambda c: c.cpu):.2f} | {statistics.median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}) "
            f"| {max(c.peak for c in costs) / 1024:.0f} |"
        )
    print()


class Verdicts:
    """Rows of figures with their limits."""

    def __init__(self):
        self.rows = []
        self.missed = 0

    def ratio(self, what, found, limit):
        middle, low, high = found
        self.add(what, f"{middle:.2f} ({low:.2f} to {high:.2f})", f"at most {limit:.2f}", middle <= limit)

    def at_most(self, what, value, limit, unit):
        self.add(what, f"{value:.1f} {unit}", f"at most {limit:g} {unit}", value <= limit)

    def add(self, what, found, limit, met):
        self.rows.append(f"| {what} | {found} | {limit} | {'met' if met else 'not met'} |")
        self.missed += not met

    def print(self):
        print("| figure | median of the turns (smallest to largest) | limit | |")
        print("|---|---:|---:|---|")
        print("\n".join(self.rows))
        print(flush=True)
