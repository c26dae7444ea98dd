# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Read by tests/run.sh, examples/run.sh, bench/run.sh and .ci/run: what a machine needs, and how build/ is made.
#
#   want PACKAGE PROBE WHY       notes a Debian package as missing unless PROBE, a command, a header or a path, is there
#   want_build                   what every build of posenc needs
#   install_wanted               installs what is missing, and says what and why; leaves a usable cmake in $PATH
#   build PRESET DIR [-D...] [-- TARGET...]   configures DIR once, then builds what is out of date

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
missing=

say() { printf '== %s\n' "$*"; }
stop() { printf '\n%s\n' "$*" >&2; exit 1; }

want() {
  if command -v "$2" >/dev/null 2>&1 || [ -e "$2" ]; then return; fi
  for folder in /usr/include /usr/include/eigen3 /usr/include/*-linux-gnu /usr/local/include /usr/local/include/eigen3; do
    if [ -e "$folder/$2" ]; then return; fi
  done
  if [ -z "$missing" ]; then say "Missing on this machine:"; fi
  missing="$missing $1"
  printf '     %-20s %s\n' "$1" "$3"
}

want_build() {
  want g++ "${CXX:-c++}" "the compiler"
  want cmake cmake "configures the build"
  want ninja-build ninja "runs the build"
  want libeigen3-dev Eigen/Core "Eigen, the matrices that posenc works on"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    stop "Neither root nor sudo here. Have these packages installed, then call this again:$missing"
  fi
}

apt_install() {
  if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 ||
      stop "No apt-get here. Install what these Debian packages hold, then call this again:$missing"
    say "Installing with apt-get:$missing"
    as_root apt-get update -qq || stop "apt-get update failed; these packages are missing:$missing"
    # shellcheck disable=SC2086  # one word a package
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
      stop "apt-get could not install:$missing"
    missing=
  fi
}

install_wanted() {
  apt_install
  recent_cmake
}

# Ubuntu 22.04 has CMake 3.22. A newer one goes into build/cmake, for this project only.
recent_cmake() {
  if [ -x "$root/build/cmake/bin/cmake" ]; then PATH=$root/build/cmake/bin:$PATH; fi
  version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
  if [ "${version%.*}" -gt 3 ] || { [ "${version%.*}" -eq 3 ] && [ "${version#*.}" -ge 24 ]; }; then return; fi
  say "CMake here is $version and posenc needs 3.24: putting a newer one into build/cmake (Python's package of it)"
  python3 -c 'import ensurepip' 2>/dev/null || want python3-venv /no-probe "makes the folder that it goes into"
  apt_install
  if python3 -m venv "$root/build/cmake" && "$root/build/cmake/bin/pip" install --quiet 'cmake>=3.25,<4'; then
    PATH=$root/build/cmake/bin:$PATH
  else
    rm -rf "$root/build/cmake"
    stop "That failed. Install CMake 3.24 or newer yourself (pip install cmake, snap install cmake --classic, or the
packages of Kitware for Ubuntu), then call this again."
  fi
}

build() {
  preset=$1 folder=$2
  shift 2
  options=
  while [ $# -gt 0 ] && [ "$1" != -- ]; do options="$options $1"; shift; done
  if [ $# -gt 0 ]; then shift; fi
  if [ ! -e "$folder/build.ninja" ] || [ -n "$(find "$root/CMakePresets.json" -newer "$folder/build.ninja")" ]; then
    say "Configuring ${folder#"$root/"}"
    mkdir -p "$root/build"
    if command -v ccache >/dev/null 2>&1; then options="$options -DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
    # shellcheck disable=SC2086  # one word an option
    (cd "$root" && cmake --preset "$preset" -B "$folder" $options >"$root/build/configure.log" 2>&1) || {
      cat "$root/build/configure.log" >&2
      stop "Configuring failed."
    }
  fi
  say "Building in ${folder#"$root/"}"
  if [ $# -gt 0 ]; then
    cmake --build "$folder" -j "$jobs" --target "$@"
  else
    cmake --build "$folder" -j "$jobs"
  fi
}
