// SPDX-License-Identifier: MIT

// Checks this library against what other projects' code computed, recorded in tests/golden/*.json.
//
//   posenc_golden                  every file
//   posenc_golden rope alibi       the files whose names begin with one of these
//
// The files are taken from the folder that POSENC_GOLDEN_DIR names, else from tests/golden. The exit status is 0 only
// if every file that the runner knows is there, and every case of every file is consumed and within tolerance, or on
// the list of what is still to come (still_to_come.cpp). The models that a case may need are looked for in the folder
// that POSENC_MODELS names; without them the case is skipped, and says so.

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"
#include "golden.hpp"
#include "report.hpp"
#include "still_to_come.hpp"

#ifndef POSENC_GOLDEN_DEFAULT_DIR
#define POSENC_GOLDEN_DEFAULT_DIR "tests/golden"
#endif

namespace golden {
namespace {

namespace fs = std::filesystem;

/// Everything that the run has found out.
struct Run {
  std::vector<FileReport> files;
  std::vector<StillToComeLine> still_to_come;
  std::vector<std::string> skipped;
  std::vector<std::string> failures;  ///< of files that could not even be read

  void add_still_to_come(const std::string& file, const StillToCome& entry, const std::string& case_name) {
    const std::string feature(entry.feature);
    auto line = std::find_if(still_to_come.begin(), still_to_come.end(),
                             [&](const auto& old) { return old.file == file && old.feature == feature; });
    if (line == still_to_come.end()) line = still_to_come.insert(line, {.file = file, .feature = feature, .cases = {}});
    if (entry.applies) line->cases.push_back(case_name);
  }

  void add_skipped(const std::string& why) {
    if (std::find(skipped.begin(), skipped.end(), why) == skipped.end()) skipped.push_back(why);
  }
};

/// Runs one case, and says in the report how it went.
void run_case(const File* file, Case& golden_case, FileReport& report, Run& run) {
  const auto fail = [&](const std::string& what) {
    report.failures.push_back(report.file + ", case " + golden_case.name() + ": " + what);
  };
  try {
    if (const auto* entry = find_still_to_come(report.file, golden_case)) {
      ++report.still_to_come;
      return run.add_still_to_come(report.file, *entry, golden_case.name());
    }
    if (!file) return fail("nothing consumes this file");
    const std::size_t failures_before = report.failures.size();
    file->consume(golden_case);
    for (const auto& left : golden_case.unread()) fail("nothing reads its " + left);
    if (golden_case.numbers_compared() == 0) fail("not a single number was compared");
    if (report.failures.size() == failures_before) ++report.consumed;
  } catch (const Skipped& why) {
    ++report.skipped;
    run.add_skipped(report.file + ": " + why.what());
  } catch (const UnknownKind& what) {
    fail(std::string("nothing consumes it: ") + what.what());
  } catch (const std::exception& error) {
    fail(error.what());
  }
}

void run_file(const fs::path& path, Run& run) {
  FileReport report;
  report.file = path.stem().string();
  try {
    std::ifstream in(path);
    const auto content = nlohmann::json::parse(in);
    const auto& parameters = content.at("params");
    const auto& arrays = content.at("arrays");
    const auto* file = find_file(report.file);

    std::set<std::string> names;
    for (const auto& entry : parameters.at("cases")) {
      ++report.cases;
      Case golden_case(parameters, entry, arrays, report);
      if (!names.insert(golden_case.name()).second)
        report.failures.push_back(report.file + ": two cases are called " + golden_case.name());
      run_case(file, golden_case, report, run);
    }
    if (report.cases == 0) report.failures.push_back(report.file + ": holds no case");
    for (const auto& [key, array] : arrays.items())
      if (!names.contains(key.substr(0, key.rfind('/'))))
        report.failures.push_back(report.file + ": array " + key + " belongs to no case");
  } catch (const std::exception& error) {
    report.failures.push_back(report.file + ": " + error.what());
  }
  run.files.push_back(std::move(report));
}

int main(const std::vector<std::string>& prefixes) {
  const char* directory_variable = std::getenv("POSENC_GOLDEN_DIR");
  const fs::path directory = directory_variable && *directory_variable ? directory_variable : POSENC_GOLDEN_DEFAULT_DIR;
  const auto wanted = [&](std::string_view stem) {
    return prefixes.empty() ||
           std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) { return stem.starts_with(prefix); });
  };

  Run run;
  std::set<fs::path> paths;  // in alphabetical order
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.path().extension() == ".json" && wanted(entry.path().stem().string())) paths.insert(entry.path());
  if (error) run.failures.push_back("cannot read " + directory.string() + ": " + error.message());
  for (const auto& path : paths) run_file(path, run);

  for (const auto& file : known_files())
    if (wanted(file.stem) && !paths.contains(directory / (std::string(file.stem) + ".json")))
      run.failures.push_back(std::string(file.stem) + ".json is missing in " + directory.string());
  for (const auto& prefix : prefixes)
    if (std::none_of(paths.begin(), paths.end(),
                     [&](const auto& path) { return path.stem().string().starts_with(prefix); }))
      run.failures.push_back("no file's name begins with " + prefix);

  std::vector<std::string> failures = std::move(run.failures);
  for (const auto& file : run.files) failures.insert(failures.end(), file.failures.begin(), file.failures.end());
  std::cout << "golden vectors in " << directory.string() << "\n\n";
  print(std::cout, run.files, run.still_to_come, run.skipped, failures);
  return failures.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace golden

int main(int argc, char** argv) {
  try {
    return golden::main({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "posenc_golden: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
}
