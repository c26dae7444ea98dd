#!/bin/sh
# SPDX-License-Identifier: MIT
# How long the compiler takes for each public header, beyond the time for <Eigen/Core> alone.
#
#   sh bench/compile_time.sh                   all of them
#   sh bench/compile_time.sh rope alibi        posenc/rope.hpp and posenc/alibi.hpp
#   CXX=clang++-14 ROUNDS=9 sh bench/compile_time.sh
#
# A file with the two includes is compiled with -std=c++20 -O2 -c, in ROUNDS (5) rounds, and Eigen alone before each. A
# header costs the processor time of its fastest compilation less that of the fastest of Eigen: what disturbs a compiler
# only ever makes it slower. Exit status 1 if one encoding adds more than 0.4 s, or posenc.hpp more than 1.2 s; the
# configurations of models, which are many encodings and a format, have no limit.
set -eu
. "$(dirname -- "$0")/../tests/setup.sh"

want g++ "${CXX:-c++}" "the compiler"
want libeigen3-dev Eigen/Core "Eigen, which the times are compared with"
want python3 python3 "takes the times"
apt_install

exec python3 -B - "$root/include" "${CXX:-c++}" "${ROUNDS:-5}" "$@" <<'EOF'
import math, os, resource, subprocess, sys, tempfile

include, compiler, rounds, names = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
ONE, WHOLE = 0.4, 1.2  # seconds

# A program in front of another compiler, such as ccache, would hand out what it has.
os.environ["CCACHE_DISABLE"] = "1"
if not names:
    names = sorted(f[:-4] for f in os.listdir(os.path.join(include, "posenc")) if f.endswith(".hpp"))
    if not os.path.exists("/usr/include/nlohmann/json.hpp"):
        names.remove("model_config")


def seconds(folder, name):
    source = os.path.join(folder, "header.cpp")
    with open(source, "w", encoding="utf-8") as file:
        file.write("#include <Eigen/Core>\n" + (f"#include <posenc/{name}.hpp>\n" if name else ""))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([compiler, "-std=c++20", "-O2", "-c", "-I", include, "-isystem", "/usr/include/eigen3",
                    source, "-o", os.path.join(folder, "header.o")], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


eigen, times = [], {name: [] for name in names}
with tempfile.TemporaryDirectory() as folder:
    seconds(folder, None)  # what it reads is in memory from now on
    for _ in range(rounds):
        for name in names:
            eigen.append(seconds(folder, None))
            times[name].append(seconds(folder, name))

version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
print(f"{version}, -std=c++20 -O2 -c, the fastest of {rounds}\n<Eigen/Core> alone {min(eigen):.2f} s")
over = 0
added = {name: min(values) - min(eigen) for name, values in times.items()}
for name, time in sorted(added.items(), key=lambda item: -item[1]):
    limit = {"posenc": WHOLE}.get(name, math.inf if name.startswith(("model_", "gguf_")) else ONE)
    over += time > limit
    print(f"  posenc/{name + '.hpp':30} {time:+5.2f} s   {'ok' if time <= limit else f'over {limit} s'}")
sys.exit(1 if over else 0)
EOF
