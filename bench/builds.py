# SPDX-License-Identifier: MIT
"""Measures what gates.txt demands of builds for other processors. Called by: sh bench/run.sh --builds [REGEX]

    python3 bench/builds.py NATIVE BASELINE AVX2 NAME... [--filter REGEX]

NATIVE, BASELINE and AVX2 are folders with posenc_NAME_bench. Of every family, the shape that is worst:

    gate baseline/FAMILY/SHAPE VALUE >= BOUND ok      time of the plain loop over that of ours, in the baseline build
    gate avx2/FAMILY/SHAPE VALUE <= BOUND ok          time of ours in the AVX2 build over that in the native one

What seems to fall short is measured again, for longer. Large shapes are left out. Exit status 1 unless all are ok.
"""

import argparse
import os
import re
import statistics
import sys

import measure
import suite

ROUNDS, MIN_TIME, AGAIN = 3, 0.003, 4  # AGAIN: so many times as many rounds, and as long
LONG = 3e8  # what takes longer than this, in nanoseconds, is timed once


def bounds_of(path):
    with open(path, encoding="utf-8") as file:
        return {words[1]: float(words[3]) for words in map(str.split, file) if words[:1] == ["build"]}


def times(program, names, often):
    medians = lambda entries: {name: measure.median(rounds) for name, rounds in measure.times(entries).items()}
    first = medians(measure.run(program, names, 1, MIN_TIME, checked=False)[1])
    if max(first.values()) > LONG:
        return first
    return medians(measure.run(program, names, ROUNDS * often, MIN_TIME * often, checked=False)[1])


def baseline(programs, name, often):
    family, _, shape = measure.split(name)
    plain = f"{family}/plain/{shape}"
    time = times(programs["baseline"], [name, plain], often)
    return time[plain] / time[name]


def avx2(programs, name, often):
    time = lambda build: times(programs[build], [name], often)[name]
    return statistics.median(time("avx2") / time("native") for _ in range(3))


def worst(value_of, programs, names, relation, bound):
    """(value, name, whether it is ok)"""
    ok = (lambda value: value >= bound) if relation == ">=" else (lambda value: value <= bound)
    values = {name: value_of(programs, name, 1) for name in names}
    for name, value in values.items():
        if not ok(value):
            values[name] = value_of(programs, name, AGAIN)
    name = (min if relation == ">=" else max)(values, key=values.get)
    return values[name], name, ok(values[name])


def main():
    parser = argparse.ArgumentParser()
    builds = ("native", "baseline", "avx2")
    for folder in builds:
        parser.add_argument(folder)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--filter", default="", type=re.compile)
    options = parser.parse_args()
    bounds = bounds_of(os.path.join(os.path.dirname(os.path.abspath(__file__)), "gates.txt"))
    all_ok = True
    for program in options.names:
        programs = {build: os.path.join(getattr(options, build), f"posenc_{program}_bench") for build in builds}
        families = {}
        for _, group in suite.groups_of(options.native, [program], options.filter, large=False):
            by_variant = {measure.split(name)[1]: name for name in group}
            families.setdefault(measure.split(group[0])[0], []).append(by_variant)
        for shapes in families.values():
            ours = [shape["ours"] for shape in shapes]
            compared = [shape["ours"] for shape in shapes if "plain" in shape]
            for value_of, relation, names in ((baseline, ">=", compared), (avx2, "<=", ours)):
                if not names:
                    continue
                build, bound = value_of.__name__, bounds[value_of.__name__]
                try:
                    value, name, ok = worst(value_of, programs, names, relation, bound)
                    verdict = "ok" if ok else "short"
                    print(f"gate {build}/{name} {value:.3f} {relation} {bound:.2f} {verdict}", flush=True)
                except measure.Failed as failure:
                    print(f"gate {build}/{names[0]} - {relation} {bound:.2f} failed", flush=True)
                    print(failure, file=sys.stderr)
                    ok = False
                all_ok = all_ok and ok
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main())
