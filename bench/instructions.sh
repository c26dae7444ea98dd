#!/bin/sh
# SPDX-License-Identifier: MIT
# Instructions that the hot kernels execute, counted by callgrind, against those in bench/instructions.txt: a slowdown
# shows on a machine however noisy.
#
#   sh bench/instructions.sh             a line a kernel; exit status 1 if one needs over 3 % more than is recorded
#   sh bench/instructions.sh --record    writes the counts of now into bench/instructions.txt
#
# Counts belong to a compiler, an Eigen and a libm: with others than those named in instructions.txt there is nothing to
# compare with, and that is said. The build is x86-64-v3, because valgrind knows no AVX-512.
set -eu
. "$(dirname -- "$0")/../tests/setup.sh"

recorded=$root/bench/instructions.txt

case $(uname -m) in x86_64) ;; *) echo "SKIPPED: instructions are counted on x86-64"; exit 0 ;; esac
want_build
want libbenchmark-dev benchmark/benchmark.h "part of the same build (Google Benchmark)"
want valgrind valgrind "counts instructions"
install_wanted

eigen=$(printf '#include <Eigen/Core>\nEIGEN_WORLD_VERSION EIGEN_MAJOR_VERSION EIGEN_MINOR_VERSION\n' |
  "${CXX:-c++}" -E -P -I /usr/include/eigen3 -x c++ - | sed -n '$s/ /./gp')
libc=$(getconf GNU_LIBC_VERSION)
here="$("${CXX:-c++}" --version | sed '1s/^c++ /g++ /;q'), Eigen $eigen, $libc, -O3 -march=x86-64-v3"
if [ "${1:-}" != --record ] && ! grep -qxF "# $here" "$recorded"; then
  echo "SKIPPED: the counts were recorded with"
  sed -n '1s/^# /  /p' "$recorded"
  echo "and here is"
  echo "  $here"
  exit 0
fi

binaries=$root/build/bench-v3
build bench "$binaries" -DPOSENC_BENCH_OPTIONS=-march=x86-64-v3 -- posenc_instructions
say "Counting"
counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT
# A part of the profile for each call of the function.
valgrind --quiet --tool=callgrind --callgrind-out-file="$counts/part" --zero-before=posenc_measured \
  --dump-after=posenc_measured "$binaries/bench/posenc_instructions" >"$counts/names"
number=0
while read -r name; do
  number=$((number + 1))
  sed -n "s/^totals: /$name /p" "$counts/part.$number"
done <"$counts/names" >"$counts/now"

if [ "${1:-}" = --record ]; then
  { echo "# $here"
    echo "# Instructions of a call of each kernel in instructions.cpp. Rewritten by: sh bench/instructions.sh --record"
    awk '{ printf "%-28s %11d\n", $1, $2 }' "$counts/now"; } >"$recorded"
  cat "$recorded"
  exit 0
fi
awk '
  /^#/ { next }
  FNR == NR { before[$1] = $2; next }
  {
    seen[$1] = 1
    if (!($1 in before)) { printf "%-28s %11s %11d          not recorded\n", $1, "-", $2; bad = 1; next }
    change = 100 * ($2 / before[$1] - 1)
    word = change > 3 ? "more" : change < -3 ? "less: record it" : "ok"
    if (change > 3) bad = 1
    printf "%-28s %11d %11d %+7.1f%% %s\n", $1, before[$1], $2, change, word
  }
  END {
    for (name in before) if (!(name in seen)) { printf "%-28s recorded, and no longer there\n", name; bad = 1 }
    exit bad
  }' "$recorded" "$counts/now"
