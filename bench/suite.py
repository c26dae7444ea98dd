# SPDX-License-Identifier: MIT
"""Runs the benchmarks and sums up. Called by: sh bench/run.sh

    python3 bench/suite.py PROGRAMS RESULTS NAME... [--quick | --check] [--filter REGEX]

PROGRAMS is the folder with posenc_NAME_bench. Writes RESULTS/results.json (the form of Google Benchmark, every round
of every benchmark), results.csv (a line a benchmark) and plots, and prints a table. A group is ours, the plain loop
and the limit of one shape: one process times it, in interleaved rounds. There are several passes over all groups, each
with processes of its own, so that what changes with the time or with the pages of memory shows as noise.

--quick   fewer and shorter rounds, without the largest shapes
--check   every benchmark once, for the comparison of its results: nothing is timed
"""

import argparse
import csv
import json
import os
import re
import sys

import measure
import plots

FULL = {"passes": 5, "rounds": 3, "min_time": 0.02}
QUICK = {"passes": 2, "rounds": 1, "min_time": 0.002}
CHECK = {"passes": 1, "rounds": 1, "min_time": 1e-6}


def is_large(shape):
    """More than 4096 tokens, or a score for each of 4096 x 4096 pairs."""
    size = measure.sizes(shape)
    queries, keys = size.get("Tq", 0), size.get("Tk", 0)
    return max(size.get("T", 0), keys, queries) > 4096 or queries * keys >= 1 << 24


def groups_of(programs, names, pattern, large):
    """[(program, names)], a group of names for each family and shape."""
    groups = []
    for name in names:
        program = os.path.join(programs, f"posenc_{name}_bench")
        by_group = {}
        for benchmark in measure.names_of(program):
            family, _, shape = measure.split(benchmark)
            if pattern.search(f"{family}/{shape}") and (large or not is_large(shape)):
                by_group.setdefault((family, shape), []).append(benchmark)
        groups += [(program, group) for group in by_group.values()]
    return groups


def run(groups, passes, rounds, min_time):
    """(results in the form of Google Benchmark, what failed)"""
    results, failures = {"context": {}, "benchmarks": []}, []
    progress = measure.Progress(passes * len(groups))
    for number in range(passes):
        for program, names in list(groups):
            progress.show(names[0])
            try:
                context, entries = measure.run(program, names, rounds, min_time, checked=number == 0)
                results["context"] = {**context, "executable": "sh bench/run.sh"}
                results["benchmarks"] += [{**entry, "pass": number} for entry in entries]
            except measure.Failed as failure:
                failures.append(str(failure))
                groups.remove((program, names))
            progress.step()
    progress.end()
    return results, failures


def rows_of(results):
    """A row a benchmark: medians over the rounds, and the ratios to the plain loop and the limit of its group."""
    rates = {}
    for entry in results["benchmarks"]:
        rates[entry["run_name"]] = entry
    rows, by_key = [], {}
    for name, values in measure.times(results["benchmarks"]).items():
        family, variant, shape = measure.split(name)
        middle, (least, largest) = measure.median(values), measure.extremes(values)
        entry = rates[name]
        per_time = entry["cpu_time"] * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[entry["time_unit"]] / middle
        row = {"family": family, "variant": variant, "shape": shape, "passes": len(values), "time_ns": middle,
               "noise": (largest - least) / middle, "tokens_per_s": entry["items_per_second"] * per_time,
               "bytes_per_s": entry["bytes_per_second"] * per_time, "flop_per_s": entry.get("flop/s", 0) * per_time}
        rows.append(row)
        by_key[family, variant, shape] = row
    for row in rows:
        for variant in measure.VARIANTS:
            other = by_key.get((row["family"], variant, row["shape"]))
            row[f"of_{variant}"] = other["time_ns"] / row["time_ns"] if other else None
    return rows


def time_text(nanoseconds):
    for unit, size in (("s ", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.1f} ns"


def rate_text(rate):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g}  "


def print_table(rows):
    """Of ours, a line a shape. A peer stands in the place of the plain loop."""
    ratio = lambda value: "-" if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.1g}"
    family = None
    print(f"{'':34} {'time':>10} {'noise':>6} {'of limit':>9} {'x plain':>9} {'tokens/s':>9} {'GB/s':>8} "
          f"{'GFLOP/s':>8}")
    for row in rows:
        if row["variant"] != "ours":
            continue
        if row["family"] != family:
            family = row["family"]
            print(family)
        others = [f"{ratio(row[f'of_{name}'])} {name}" for name in ("torch", "ggml") if row[f"of_{name}"] is not None]
        print(f"    {row['shape'].replace('/', ' '):30} {time_text(row['time_ns']):>10} {100 * row['noise']:5.1f}% "
              f"{ratio(row['of_limit']):>9} {others[0] if others else ratio(row['of_plain']):>9} "
              f"{rate_text(row['tokens_per_s']):>9} {row['bytes_per_s'] / 1e9:8.2f} "
              + (f"{row['flop_per_s'] / 1e9:8.1f}" if row["flop_per_s"] else f"{'-':>8}"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs")
    parser.add_argument("results")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--filter", default="", type=re.compile)
    options = parser.parse_args()

    large = not (options.quick or options.check)
    groups = groups_of(options.programs, options.names, options.filter, large)
    if not groups:
        sys.exit("There is no such benchmark")
    count = len(groups)
    results, failures = run(groups, **(QUICK if options.quick else CHECK if options.check else FULL))
    if options.check:
        print(f"{count - len(failures)} groups of benchmarks have the same results as the plain loop")
    elif results["benchmarks"]:
        os.makedirs(options.results, exist_ok=True)
        with open(os.path.join(options.results, "results.json"), "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
        rows = rows_of(results)
        with open(os.path.join(options.results, "results.csv"), "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({key: f"{x:.5g}" if isinstance(x, float) else x for key, x in row.items()})
        for key in ("processor", "compiler", "flags", "Eigen"):
            print(f"{key + ':':11}{results['context'].get(key)}")
        print_table(rows)
        plots.draw(rows, options.results)
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
