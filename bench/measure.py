# SPDX-License-Identifier: MIT
"""Runs benchmarks in interleaved rounds. Used by suite.py and gates.py.

A benchmark is named family[/variant]/shape, as bench.hpp says:

    rope/half_split/float/limit/H:8/D:64/T:512     family rope/half_split/float, variant limit, shape H:8/D:64/T:512

What is compared is always timed by one process, which goes through its benchmarks in rounds and in random order, so
that a machine that becomes slower for a while is so for all of them.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

REAL_TIME = "/real_time"  # what Google Benchmark adds to the name where the clock on the wall counts
VARIANTS = ("plain", "limit", "reference", "torch", "ggml")  # and "ours", which is not written


def split(name):
    """family, variant, shape"""
    parts = name.split("/")
    shape = [part for part in parts if ":" in part]
    words = [part for part in parts if ":" not in part]
    variant = words.pop() if words[-1] in VARIANTS else "ours"
    return "/".join(words), variant, "/".join(shape)


def sizes(shape):
    """{"H": 8, "D": 64, "T": 512}"""
    return {key: int(value) for key, value in (part.split(":") for part in shape.split("/") if part)}


def seconds(number, program):
    """As the option --benchmark_min_time wants them: with a unit since Google Benchmark 1.8."""
    if program not in seconds.units:
        text = subprocess.run([program, "--help"], capture_output=True, text=True).stdout
        seconds.units[program] = "" if "min_time=<min_time>" in text else "s"
    return f"{number}{seconds.units[program]}"


seconds.units = {}


def names_of(program):
    listed = subprocess.run([program, "--benchmark_list_tests=true"], capture_output=True, text=True, check=True)
    return [line.removesuffix(REAL_TIME) for line in listed.stdout.splitlines() if "/" in line]


class Failed(Exception):
    """A benchmark program that ended in error or found a wrong result."""


def run(program, names, rounds, min_time, checked=True):
    """Times the benchmarks of these names, all of one program, in interleaved rounds: (context, entries of Google
    Benchmark's JSON, one a benchmark and round). Results are compared first, unless `checked` is false."""
    alternatives = "|".join(re.sub(r"([.+*?()\[\]{}^$\\|])", r"\\\1", name) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.json")
        command = [program, f"--benchmark_filter=^({alternatives})({REAL_TIME})?$", f"--benchmark_repetitions={rounds}",
                   f"--benchmark_min_time={seconds(min_time, program)}",
                   "--benchmark_enable_random_interleaving=true", "--benchmark_format=json",
                   f"--benchmark_out={out}", "--benchmark_out_format=json"] + ([] if checked else ["--unchecked"])
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            with open(out, encoding="utf-8") as file:
                result = json.load(file)
        except (OSError, ValueError):
            raise Failed(f"{' '.join(command[:2])}: {done.stderr.strip() or f'status {done.returncode}'}") from None
    entries = [entry for entry in result["benchmarks"] if entry.get("run_type") != "aggregate"]
    for entry in entries:
        entry["run_name"] = re.sub(r"/repeats:\d+", "", entry["run_name"])
        if entry["run_name"].endswith(REAL_TIME):
            entry["run_name"] = entry["run_name"].removesuffix(REAL_TIME)
            entry["cpu_time"] = entry["real_time"]
        if entry.get("error_occurred"):
            raise Failed(f"{entry['run_name']}: {entry['error_message']}")
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:2])}: {done.stderr.strip() or f'status {done.returncode}'}")
    return result["context"], entries


def times(entries):
    """{name: {pass: times of a call in nanoseconds}}. Without passes each round is one."""
    unit = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
    by_name = {}
    for entry in entries:
        number = entry.get("pass", entry.get("repetition_index"))
        by_pass = by_name.setdefault(entry["run_name"], {})
        by_pass.setdefault(number, []).append(entry["cpu_time"] * unit[entry["time_unit"]])
    return by_name


def median(by_pass):
    """Over all rounds of all passes."""
    return statistics.median(time for times_of_pass in by_pass.values() for time in times_of_pass)


def extremes(by_pass):
    """The smallest and the largest of the medians of the passes."""
    medians = [statistics.median(times_of_pass) for times_of_pass in by_pass.values()]
    return min(medians), max(medians)


class Progress:
    """A line on a terminal that says how far it is; elsewhere a line for every tenth of the way."""

    def __init__(self, total):
        self.total, self.done, self.started, self.tenth = total, 0, time.monotonic(), -1

    def show(self, what):
        passed = time.monotonic() - self.started
        left = passed / self.done * (self.total - self.done) if self.done else 0
        line = f"[{self.done:4}/{self.total}] {what}"
        if self.done:
            line += f"  ({int(left) // 60} min {int(left) % 60:02} s left)"
        if sys.stderr.isatty():
            print(f"\r\033[K{line[:118]}", end="", file=sys.stderr, flush=True)
        elif self.done * 10 // self.total != self.tenth:
            self.tenth = self.done * 10 // self.total
            print(line, file=sys.stderr, flush=True)

    def step(self):
        self.done += 1

    def end(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
