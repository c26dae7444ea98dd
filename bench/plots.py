# SPDX-License-Identifier: MIT
"""Draws the results with gnuplot, as SVG. Used by suite.py.

roofline.svg       bytes/s of each encoding, within the limit that the machine has for what it does
roofline_flop.svg  flop/s, for what computes more than it moves
scaling.svg        time of a token as the sequence grows, from the benchmarks named scaling/... and streaming/...
"""

import os
import subprocess

import measure

BLUE, GREY, RED = "#2a6ebb", "#d8d8d8", "#c0392b"


def gnuplot(script):
    subprocess.run(["gnuplot", "-"], input=script, text=True, check=True)


def tokens(row):
    size = measure.sizes(row["shape"])
    return max(size.get("T", 0), size.get("Tq", 0), size.get("Tk", 0))


def quoted(text):
    return '"' + text.replace("_", " ").replace("/float", "").replace("/", ", ") + '"'


def roofline(rows, key, unit, path):
    """A bar a family in float, for its shape with the most tokens up to 4096: the limit is grey, ours is blue."""
    chosen, of = {}, {(row["family"], row["variant"], row["shape"]): row for row in rows}
    for row in rows:
        family = row["family"]
        if row["variant"] != "ours" or not row[key] or (family, "limit", row["shape"]) not in of:
            continue
        if "float" in family.split("/") and not family.startswith("scaling/") and tokens(row) <= 4096:
            if family not in chosen or tokens(row) >= tokens(chosen[family]):
                chosen[family] = row
    if not chosen:
        return
    families = sorted(chosen.values(), key=lambda row: row["family"], reverse=True)
    lines = []
    for row in families:
        limit = of[row["family"], "limit", row["shape"]][key]
        plain = of.get((row["family"], "plain", row["shape"]))
        name = f"{row['family']} {row['shape']}"
        lines.append(f"{quoted(name)} {row[key] / 1e9} {limit / 1e9} {plain[key] / 1e9 if plain else 'NaN'}")
    data = "\n".join(lines)
    least = min(min(row[key], of[row["family"], "limit", row["shape"]][key]) for row in families) / 1e9 / 3
    gnuplot(f"""
set terminal svg size 1000,{60 + 17 * len(families)} font "sans,11" background "white"
set output "{path}"
set logscale x
set xrange [{least}:*]
set yrange [-0.7:{len(families) - 0.3}]
set xlabel "{unit}"
set grid xtics lc rgb "#bbbbbb"
set tics nomirror out
set border 3
set key outside top center horizontal
$rows << EOD
{data}
EOD
plot $rows using ({least}):0:({least}):3:($0-0.4):($0+0.4):ytic(1) with boxxyerror fs solid fc rgb "{GREY}" title "limit", \\
     $rows using ({least}):0:({least}):2:($0-0.22):($0+0.22) with boxxyerror fs solid fc rgb "{BLUE}" title "ours", \\
     $rows using 4:0 with points pt 7 ps 0.5 lc rgb "{RED}" title "plain loop"
""")


def scaling(rows, path):
    """Time of a token against the number of tokens, a line a family and what else its shapes have."""
    lines = {}
    for row in rows:
        size = measure.sizes(row["shape"])
        if row["variant"] == "ours" and row["family"].startswith(("scaling/", "streaming/")) and tokens(row):
            rest = " ".join(f"{name} {value}" for name, value in size.items() if name not in ("T", "Tk", "Tq"))
            lines.setdefault((row["family"], rest), []).append((tokens(row), 1e9 / row["tokens_per_s"]))
    lines = {key: sorted(points) for key, points in lines.items() if len(points) > 2}
    if not lines:
        return
    blocks = [f"{quoted(family.replace('scaling/', '') + ' ' + rest)}\n"
              + "\n".join(f"{count} {time}" for count, time in points) for (family, rest), points in lines.items()]
    data = "\n\n\n".join(blocks)
    gnuplot(f"""
set terminal svg size 1000,620 font "sans,11" background "white"
set output "{path}"
set logscale xy
set logscale x 2
set xlabel "tokens of the sequence"
set ylabel "time of a token [ns]"
set grid lc rgb "#dddddd"
set border 3
set tics nomirror out
set key outside right
$lines << EOD
{data}
EOD
plot for [i=0:{len(blocks) - 1}] $lines index i using 1:2 with linespoints lw 1.5 ps 0.5 title columnheader(1)
""")


def draw(rows, folder):
    moving = [row for row in rows if not row["flop_per_s"]]
    roofline(moving, "bytes_per_s", "GB/s", os.path.join(folder, "roofline.svg"))
    roofline(rows, "flop_per_s", "GFLOP/s", os.path.join(folder, "roofline_flop.svg"))
    scaling(rows, os.path.join(folder, "scaling.svg"))
