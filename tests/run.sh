#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the tests and examples in build/ and runs every test. What is missing on the machine is installed first.
# Arguments go to ctest:  sh tests/run.sh -R rope
set -eu
. "$(dirname -- "$0")/setup.sh"

want_build
want catch2 catch2 "the framework of the tests"
want nlohmann-json3-dev nlohmann/json.hpp "reads the golden files"
want librapidcheck-dev rapidcheck.h "makes up the cases that the laws are tried on"
want libmpfr-dev mpfr.h "exact values that angles are compared with"
want libcli11-dev CLI/CLI.hpp "options of two of the examples"
want pkg-config pkg-config "one of the tested ways to use the package"
install_wanted
build tests "$root/build"

say "Running the tests"
test_with() { ctest --test-dir "$root/build" -j "$jobs" --output-on-failure "$@"; }
if [ $# -gt 0 ]; then
  test_with "$@"
else
  failed=0
  test_with -E '^golden' || failed=1
  test_with -R '^golden' --verbose || failed=1  # shows its table
  exit $failed
fi
