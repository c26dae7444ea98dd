# SPDX-License-Identifier: MIT
"""Measures the lines of gates.txt and says which hold. Called by: sh bench/run.sh --gates [REGEX]

    python3 bench/gates.py FOLDER_OF_PROGRAMS [REGEX]

A line `gate NAME VALUE >= BOUND ok` (or `short`; `missing` if there is no such benchmark here) for every gate that
REGEX matches. A value is a ratio of medians over the interleaved rounds of one process; VALUE is the median of those of
three processes. Exit status 1 unless all are ok.
"""

import os
import re
import statistics
import sys

import measure

PROCESSES, ROUNDS, MIN_TIME = 3, 7, 0.02  # seconds a round and benchmark
LONG, LONG_ROUNDS = 5e8, 3  # what takes longer than this, in nanoseconds, has one process and fewer rounds


def read_gates(path):
    program = None
    with open(path, encoding="utf-8") as file:
        for line in file:
            words = line.split("#")[0].split()
            if len(words) == 2 and words[0] == "program":
                program = words[1]
            elif words and words[0] != "build":  # that is for builds.py
                yield program, words[0], words[1], words[2:-2], words[-2], float(words[-1])


def limit_of(name):
    family, _, shape = measure.split(name)
    return f"{family}/limit/{shape}"


def value_of(kind, names, time):
    share = lambda name: time[limit_of(name)] / time[name]
    if kind == "share":
        return share(names[0])
    if kind == "speed":
        return time[names[1]] / time[names[0]]
    if kind == "cost":
        return time[names[0]] / time[names[1]]
    if kind == "evenness":
        return share(names[0]) / share(names[1])
    raise ValueError(f"gates.txt: a value is a share, a speed, a cost or an evenness, not {kind}")


def measured(path, kind, names, needed):
    """The first round also compares the results, and says how long one takes."""
    time_of = lambda entries: {name: measure.median(rounds) for name, rounds in measure.times(entries).items()}
    first = time_of(measure.run(path, needed, 1, 0.001)[1])
    if max(first.values()) > LONG:
        return value_of(kind, names, time_of(measure.run(path, needed, LONG_ROUNDS, 0.001, checked=False)[1]))
    runs = [measure.run(path, needed, ROUNDS, MIN_TIME, checked=False)[1] for _ in range(PROCESSES)]
    return statistics.median(value_of(kind, names, time_of(entries)) for entries in runs)


def main():
    folder, pattern = sys.argv[1], re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    here = os.path.dirname(os.path.abspath(__file__))
    all_ok = True
    there = {}
    for program, name, kind, names, relation, bound in read_gates(os.path.join(here, "gates.txt")):
        if not pattern.search(name):
            continue
        path = os.path.join(folder, f"posenc_{program}_bench")
        if program not in there:
            there[program] = set(measure.names_of(path)) if os.path.exists(path) else set()
        needed = list(names) + ([limit_of(n) for n in names] if kind in ("share", "evenness") else [])
        if not there[program].issuperset(needed):
            text, verdict = "-", "missing"
        else:
            try:
                value = measured(path, kind, names, needed)
                text = f"{value:.3f}"
                verdict = "ok" if (value >= bound if relation == ">=" else value <= bound) else "short"
            except measure.Failed as failure:
                print(failure, file=sys.stderr)
                text, verdict = "-", "failed"
        all_ok = all_ok and verdict == "ok"
        print(f"gate {name} {text} {relation} {bound:.2f} {verdict}", flush=True)
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main())
