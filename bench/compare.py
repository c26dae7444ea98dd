# SPDX-License-Identifier: MIT
"""What changed between two runs of the benchmarks, and whether it is more than noise.

    python3 bench/compare.py OLD.json NEW.json       files of sh bench/run.sh, or of Google Benchmark with repetitions

A benchmark is faster or slower if its time changed, and its time as a share of the limit timed beside it as well, the
same way: a machine that is slower today slows both. A change of medians counts if it is more than 2 % and more than the
two runs differ from themselves: the extremes of the passes of one and of the other, together. The number shown is the
smaller of the two changes.
"""

import json
import math
import statistics
import sys

import measure

LEAST = 0.02


def load(path):
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    entries = [entry for entry in results["benchmarks"] if entry.get("run_type") != "aggregate"]
    return results["context"], measure.times(entries)


def change(old, new):
    """ln(new / old) of the medians, and the two spreads together, likewise."""
    spread = sum(math.log(largest / least) for least, largest in (measure.extremes(old), measure.extremes(new)))
    return math.log(measure.median(new) / measure.median(old)), spread


def relative(times, name, limit):
    """Times as multiples of those of the limit in the same pass."""
    return {number: [time / statistics.median(times[limit][number]) for time in rounds]
            for number, rounds in times[name].items() if number in times[limit]}


def verdict(changes):
    """(word, change, noise): of the time, and of its ratio to the limit where there is one."""
    smallest, noise = min(changes, key=lambda pair: abs(pair[0]))
    beyond = all(abs(value) > max(math.log1p(LEAST), spread) for value, spread in changes)
    if beyond and all(value > 0 for value, _ in changes):
        return "slower", smallest, noise
    if beyond and all(value < 0 for value, _ in changes):
        return "faster", smallest, noise
    return "same", smallest, noise


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    (old_context, old), (new_context, new) = load(sys.argv[1]), load(sys.argv[2])
    for key in ("processor", "compiler", "flags", "Eigen"):
        if old_context.get(key) != new_context.get(key):
            print(f"Not the same {key}: {old_context.get(key)} before, {new_context.get(key)} now")
    count = {"faster": 0, "slower": 0, "same": 0}
    drifts = []
    print(f"{'':62} {'before [us]':>12} {'now [us]':>12}  {'change':>8} {'noise':>7}")
    for name in (name for name in new if name in old):
        family, variant, shape = measure.split(name)
        if variant == "limit":
            drifts.append(change(old[name], new[name])[0])
        if variant != "ours":
            continue
        changes = [change(old[name], new[name])]
        limit = f"{family}/limit/{shape}"
        if limit in old and limit in new:
            changes.append(change(relative(old, name, limit), relative(new, name, limit)))
        word, value, noise = verdict(changes)
        count[word] += 1
        print(f"{name:62} {measure.median(old[name]) / 1e3:12.3f} {measure.median(new[name]) / 1e3:12.3f}  "
              f"{100 * math.expm1(value):+7.1f}% {100 * math.expm1(noise):6.1f}%  {word}")
    print(f"{count['faster']} faster, {count['slower']} slower, {count['same']} the same within noise; "
          f"{len(old.keys() - new.keys())} only before, {len(new.keys() - old.keys())} only now")
    if drifts:
        print(f"The machine itself, by its limits: {100 * math.expm1(statistics.median(drifts)):+.1f}%")


if __name__ == "__main__":
    main()
