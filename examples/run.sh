#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds and runs an example. What is missing on the machine is installed first.
#
#   sh examples/run.sh                   the tour: every encoding on a real text, with pictures
#   sh examples/run.sh NAME [args...]    examples/NAME.cpp with these arguments
set -eu
. "$(dirname -- "$0")/../tests/setup.sh"

name=${1:-tour}
if [ $# -gt 0 ]; then shift; fi
if [ ! -e "$root/examples/$name.cpp" ]; then
  stop "There is no example $name. There are:$(cd "$root/examples" && printf ' %s' *.cpp | sed 's/\.cpp//g')"
fi

want_build
want libcli11-dev CLI/CLI.hpp "options of the examples"
if [ "$name" = tour ]; then want gnuplot-nox gnuplot "draws the pictures"; fi
if [ "$name" = rope_info ]; then want nlohmann-json3-dev nlohmann/json.hpp "reads the configuration"; fi
install_wanted
build release "$root/build/examples" -DPOSENC_BUILD_TESTS=OFF -- "example_$name"

say "Running $name"
exec "$root/build/examples/examples/example_$name" "$@"
