#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the benchmarks, runs them, and sums up. What is missing on the machine is installed first.
#
#   sh bench/run.sh                      all of them: some ten minutes
#   sh bench/run.sh --quick              all of them, each for an instant: under two minutes, and less exact
#   sh bench/run.sh rope alibi           bench/rope_bench.cpp and bench/alibi_bench.cpp
#   sh bench/run.sh rope --benchmark_filter=T:512 --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
#                                        what begins with a dash goes to Google Benchmark; the summary shows medians
set -eu
. "$(dirname -- "$0")/../tests/setup.sh"

all=$(cd "$root/bench" && printf '%s\n' *_bench.cpp | sed 's/_bench\.cpp$//')
names=
while [ $# -gt 0 ]; do
  case $1 in
    -*) break ;;
    all) names="$names $all" ;;
    *)
      [ -e "$root/bench/$1_bench.cpp" ] || stop "There is no benchmark $1. There are:$(printf ' %s' "$all" | tr '\n' ' ')"
      names="$names $1"
      ;;
  esac
  shift
done
if [ -z "$names" ]; then names=$all; fi
quick=
if [ "${1:-}" = --quick ]; then
  quick=0.01
  shift
fi

want_build
want libbenchmark-dev benchmark/benchmark.h "measures (Google Benchmark)"
install_wanted
targets=
for name in $names; do targets="$targets posenc_${name}_bench"; done
# shellcheck disable=SC2086  # one word a target
build bench "$root/build/bench" -- $targets

results=$root/build/bench/results
mkdir -p "$results"
rm -f "$results"/*.csv
status=0
for name in $names; do
  say "Running $name"
  program=$root/build/bench/bench/posenc_${name}_bench
  if [ -n "$quick" ] && ! "$program" --help | grep -q 'min_time=<min_time>'; then quick=0.01s; fi  # Google Benchmark 1.8
  "$program" ${quick:+--benchmark_min_time=$quick} --benchmark_out="$results/$name.csv" --benchmark_out_format=csv \
    --benchmark_counters_tabular=true "$@" || status=1
done

# One line a benchmark: the time of a call, the share of the limit, and how many times as fast as the plain loop it is.
set -- "$results"/*.csv
[ -s "$1" ] || exit $status
say "Summary (a share of the limit of 1 is what the machine can do; -: not in this run)"
cat "$@" | awk -F, '
  function median(name,   i, j, t, n, v) {
    n = split(times[name], v, " ")
    for (i = 2; i <= n; ++i)
      for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; --j) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
  }
  function ratio(name, time) { return name in times ? sprintf("%.2f", median(name) / time) : "-" }
  {
    name = $1
    gsub(/"/, "", name)
    sub(/\/repeats:[0-9]+/, "", name)
    if (name !~ /\/[A-Za-z]+:[0-9]+$/ || $4 !~ /^[0-9]/) next   # the header, context, aggregates and errors
    if (!(name in times)) order[++count] = name
    times[name] = times[name] " " $4
  }
  END {
    printf "%-56s %12s %10s %10s\n", "", "time [us]", "of limit", "x plain"
    for (k = 1; k <= count; ++k) {
      name = order[k]
      if (name ~ /\/(plain|limit)\//) continue
      where = match(name, /\/[A-Za-z]+:[0-9]/)
      time = median(name)
      if (time > 0)
        printf "%-56s %12.2f %10s %10s\n", name, time / 1000,
          ratio(substr(name, 1, where) "limit" substr(name, where), time),
          ratio(substr(name, 1, where) "plain" substr(name, where), time)
    }
  }'
exit $status
