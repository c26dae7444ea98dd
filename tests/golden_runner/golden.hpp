// SPDX-License-Identifier: MIT
#pragma once

// A case of a golden file, as the code that consumes it sees it.
//
// A case is consumed when its code has read every one of its parameters and arrays, has compared at least one number,
// and found all within tolerance. So a case that says something this runner does not know of, a soft cap say, cannot
// pass as one that does not: the parameter that nobody read is what fails.

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "report.hpp"
#include "tensor.hpp"
#include "tolerance.hpp"

namespace golden {

/// Thrown by a case's code: this is a kind of case that it does not know.
struct UnknownKind : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Thrown by a case's code: what the case needs is not on this machine.
struct Skipped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Case {
 public:
  /// \param file_parameters the file's "params"; `parameters` is the case's own entry in its list of cases.
  /// \param arrays          the file's "arrays"; those of this case are called "<case name>/<array name>".
  Case(const nlohmann::json& file_parameters, const nlohmann::json& parameters, const nlohmann::json& arrays,
       FileReport& report);

  const std::string& name() const { return name_; }

  /// The part of the name in front of the first '_': where a file holds several peers, the one that was recorded.
  std::string peer() const { return name_.substr(0, name_.find('_')); }

  // What the case says. To look at something here does not count as reading it.

  bool has(const std::string& parameter) const { return parameters_.contains(parameter); }
  bool has_array(const std::string& array) const { return arrays_.contains(name_ + "/" + array); }
  std::vector<std::string> array_names() const;
  const nlohmann::json& peek(const std::string& parameter) const { return parameters_.at(parameter); }

  /// A parameter of the case, or, where the case is silent, of the file.
  template <class T>
  T get(const std::string& parameter) {
    return json(parameter).template get<T>();
  }
  template <class T>
  T get_or(const std::string& parameter, T fallback) {
    return has(parameter) ? get<T>(parameter) : fallback;
  }
  const nlohmann::json& json(const std::string& parameter);

  /// Reads a parameter that repeats what the arrays say already, and makes sure that it does.
  template <class T>
  void expect(const std::string& parameter, const T& value) {
    const auto& found = json(parameter);
    if (found != nlohmann::json(value))
      throw UnknownKind("parameter " + parameter + " is " + found.dump() + " where " + nlohmann::json(value).dump() +
                        " is expected");
  }

  /// An array, whatever its rank. T is float, double or std::int64_t and must hold the recorded type without loss.
  template <class T>
  Tensor<T> array(const std::string& array);

  // What is checked.

  /// Every entry of `ours` against the same entry of `peer`, both any Eigen expression of one size. `check` names the
  /// line of the table that this belongs to.
  template <class Ours, class Peer>
  void compare(const std::string& check, const Tolerance& tolerance, const Eigen::DenseBase<Ours>& ours,
               const Eigen::DenseBase<Peer>& peer) {
    compare_numbers(check, tolerance, ours.derived().template cast<double>(), peer.derived().template cast<double>());
  }

  /// A statement that must hold.
  void require(const std::string& check, bool holds);

  // What is left over at the end.

  std::size_t numbers_compared() const { return numbers_compared_; }
  std::vector<std::string> unread() const;

 private:
  void compare_numbers(const std::string& check, const Tolerance& tolerance, const Matrix<double>& ours,
                       const Matrix<double>& peer);
  void fail(const std::string& what);

  const nlohmann::json& file_parameters_;
  const nlohmann::json& parameters_;
  const nlohmann::json& arrays_;
  FileReport& report_;
  std::string name_;
  std::set<std::string> read_;
  std::size_t numbers_compared_ = 0;
};

extern template Tensor<float> Case::array(const std::string&);
extern template Tensor<double> Case::array(const std::string&);
extern template Tensor<std::int64_t> Case::array(const std::string&);

}  // namespace golden
