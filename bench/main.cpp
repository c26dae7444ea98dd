// SPDX-License-Identifier: MIT
// The program around each file of benchmarks: says what it runs on, and exits with 1 if a result was wrong. Its options
// are those of Google Benchmark, and --unchecked, with which no results are compared.

#include "bench.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "g++ " __VERSION__;
#else
  return "unknown";
#endif
}

std::string eigen_version() {
#if defined(EIGEN_PATCH_VERSION)  // since 5.0
  constexpr int version[] = {EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION, EIGEN_PATCH_VERSION};
#else
  constexpr int version[] = {EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION};
#endif
  return std::to_string(version[0]) + '.' + std::to_string(version[1]) + '.' + std::to_string(version[2]) + " (" +
         Eigen::SimdInstructionSetsInUse() + ')';
}

}  // namespace

int main(int argc, char** argv) {
#if defined(__GLIBC__)  // keep freed memory, so that every case lies in the same pages and no call pays for fresh ones
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#endif
  benchmark::AddCustomContext("processor", processor());
  benchmark::AddCustomContext("compiler", compiler());
  benchmark::AddCustomContext("flags", POSENC_BENCH_FLAGS);
  benchmark::AddCustomContext("Eigen", eigen_version());

  char** const end = std::remove(argv, argv + argc, std::string_view("--unchecked"));
  bench::checks = end == argv + argc;
  argc = static_cast<int>(end - argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  add_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return bench::failed ? 1 : 0;
}
