#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the benchmarks, runs them, and sums up. What is missing on the machine is installed first.
#
#   sh bench/run.sh                      all of them: a table, and in build/bench/results JSON, CSV and plots
#   sh bench/run.sh --quick              the same in under two minutes: short rounds, without the largest shapes
#   sh bench/run.sh rope alibi           bench/rope_bench.cpp and bench/alibi_bench.cpp
#   sh bench/run.sh --filter 'half_split.*T:512'    what has this in its name (a regular expression)
#   sh bench/run.sh --compare OLD.json   and then what is faster or slower than in another run's results.json
#   sh bench/run.sh --gates [REGEX]      only what bench/gates.txt demands: a line each, status 1 if one falls short
#   sh bench/run.sh --builds [REGEX]     what it demands of builds for other processors: a line each, likewise
#   sh bench/run.sh --check              nothing is timed: whether all results are those of the plain loops
#
#   --options '-O2 -march=x86-64'        compiler options behind -O3 -march=native, in a build folder of their own
#   --peers                              also libtorch and ggml, where they are installed; without names, only them
set -eu
. "$(dirname -- "$0")/../tests/setup.sh"

usage() { sed -n '3,16s/^# \{0,1\}//p' "$0"; exit 2; }

all=$(cd "$root/bench" && printf '%s\n' *_bench.cpp | sed 's/_bench\.cpp$//')
names=
what=run
gates=
old=
peers=OFF
compiler_options=
set_aside= # what suite.py gets
while [ $# -gt 0 ]; do
  case $1 in
    --gates | --builds)
      what=${1#--}
      case ${2:-} in '' | -*) ;; *) gates=$2; shift ;; esac
      ;;
    --quick | --check) set_aside="$set_aside $1" ;;
    --filter) [ $# -gt 1 ] || usage; filter=$2; shift ;;
    --compare) [ $# -gt 1 ] || usage; old=$2; [ -r "$old" ] || stop "There is no file $old"; shift ;;
    --options) [ $# -gt 1 ] || usage; compiler_options=$2; shift ;;
    --peers) peers=ON ;;
    all) names="$names $all" ;;
    -*) usage ;;
    *)
      [ -e "$root/bench/$1_bench.cpp" ] || [ -e "$root/bench/peers/$1_bench.cpp" ] ||
        stop "There is no benchmark $1. There are:$(printf ' %s' "$all" | tr '\n' ' ')"
      names="$names $1"
      ;;
  esac
  shift
done

want_build
want libbenchmark-dev benchmark/benchmark.h "measures (Google Benchmark)"
want python3 python3 "runs them in rounds and sums up"
want gnuplot-nox gnuplot "draws the results"
install_wanted

if [ "$what" = gates ]; then
  names=$(sed -n 's/^program //p' "$root/bench/gates.txt")
elif [ -z "$names" ] && [ "$peers" = OFF ]; then
  names=$all
fi
targets=
for name in $names; do targets="$targets posenc_${name}_bench"; done
if [ -z "$names" ]; then targets=posenc_peers; fi

# Builds them with some options behind the usual ones, in $binaries.
build_with() {
  binaries=$root/build/bench
  if [ "$peers" = ON ]; then binaries=$binaries-peers$(sed -n 's/^VERSION_CODENAME=/-/p' /etc/os-release); fi
  if [ -n "$1" ]; then binaries=$binaries$(printf '%s' "$1" | tr -cs 'A-Za-z0-9' '-'); fi
  listed=$(printf '%s' "$1" | tr ' ' ';')
  # shellcheck disable=SC2086  # one word a target
  build bench "$binaries" "-DPOSENC_BENCH_PEERS=$peers" "-DPOSENC_BENCH_OPTIONS=$listed" -- $targets
}

if [ "$what" = builds ]; then
  folders=
  for flags in '' '-O2 -march=x86-64' '-march=x86-64-v3'; do
    build_with "$flags"
    folders="$folders $binaries/bench"
  done
  say "Measuring the builds"
  # shellcheck disable=SC2086  # one word a folder and a name
  exec python3 -B "$root/bench/builds.py" $folders $names ${gates:+--filter "$gates"}
fi
build_with "$compiler_options"
if [ -z "$names" ]; then
  names=$(cd "$root/bench/peers" && for file in *_bench.cpp; do
    name=${file%_bench.cpp}
    if [ -e "$binaries/bench/posenc_${name}_bench" ]; then echo "$name"; fi
  done)
fi

if [ "$what" = gates ]; then
  say "Measuring the gates"
  exec python3 -B "$root/bench/gates.py" "$binaries/bench" ${gates:+"$gates"}
fi
say "Running"
status=0
# shellcheck disable=SC2086
python3 -B "$root/bench/suite.py" "$binaries/bench" "$binaries/results" $names $set_aside ${filter:+--filter "$filter"} ||
  status=1
if [ -n "$old" ]; then
  say "Compared with $old"
  python3 -B "$root/bench/compare.py" "$old" "$binaries/results/results.json"
fi
case $set_aside in *--check*) ;; *) say "Results are in ${binaries#"$root/"}/results" ;; esac
exit $status
