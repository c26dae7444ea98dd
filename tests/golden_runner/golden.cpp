// SPDX-License-Identifier: MIT
#include "golden.hpp"

#include <limits>
#include <sstream>
#include <type_traits>
#include <utility>

namespace golden {
namespace {

/// Prose for readers and the name itself say nothing that code could use.
bool is_prose(const std::string& parameter) {
  return parameter == "name" || parameter == "note" || parameter.ends_with("_note");
}

template <class T>
bool holds(const std::string& dtype) {
  if constexpr (std::is_same_v<T, std::int64_t>) return dtype == "i64";
  if constexpr (std::is_same_v<T, double>) return dtype == "f64" || dtype == "f32";
  return dtype == "f32";
}

}  // namespace

std::string to_string(std::span<const Index> shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + "]";
}

Case::Case(const nlohmann::json& file_parameters, const nlohmann::json& parameters, const nlohmann::json& arrays,
           FileReport& report)
    : file_parameters_(file_parameters),
      parameters_(parameters),
      arrays_(arrays),
      report_(report),
      name_(parameters.at("name").get<std::string>()) {}

const nlohmann::json& Case::json(const std::string& parameter) {
  read_.insert(parameter);
  if (parameters_.contains(parameter)) return parameters_.at(parameter);
  if (file_parameters_.contains(parameter)) return file_parameters_.at(parameter);
  throw UnknownKind("it has no parameter " + parameter);
}

template <class T>
Tensor<T> Case::array(const std::string& array) {
  const std::string key = name_ + "/" + array;
  if (!arrays_.contains(key)) throw UnknownKind("it has no array " + array);
  read_.insert(key);
  const auto& entry = arrays_.at(key);
  const auto dtype = entry.at("dtype").get<std::string>();
  if (!holds<T>(dtype)) throw UnknownKind("array " + array + " has an unexpected type, " + dtype);
  auto shape = entry.at("shape").get<std::vector<Index>>();
  auto data = entry.at("data").get<std::vector<T>>();
  Index size = 1;
  for (const Index extent : shape) size *= extent;
  if (size != static_cast<Index>(data.size()))
    throw std::runtime_error("array " + array + " has " + std::to_string(data.size()) + " numbers, its shape is " +
                             to_string(shape));
  return {std::move(shape), std::move(data)};
}

template Tensor<float> Case::array(const std::string&);
template Tensor<double> Case::array(const std::string&);
template Tensor<std::int64_t> Case::array(const std::string&);

void Case::compare_numbers(const std::string& check, const Tolerance& tolerance, const Matrix<double>& ours,
                           const Matrix<double>& peer) {
  if (ours.rows() != peer.rows() || ours.cols() != peer.cols()) {
    std::ostringstream message;
    message << check << ": ours is " << ours.rows() << " x " << ours.cols() << ", the peer's is " << peer.rows()
            << " x " << peer.cols();
    return fail(message.str());
  }
  auto& row = report_.check(check, tolerance.words());
  numbers_compared_ += static_cast<std::size_t>(ours.size());
  row.numbers += static_cast<std::size_t>(ours.size());

  double worst = -1;
  std::pair<Index, Index> where;
  for (Index j = 0; j < ours.cols(); ++j)
    for (Index i = 0; i < ours.rows(); ++i) {
      const double error = tolerance.error(ours(i, j), peer(i, j));
      if (!(error <= worst)) {  // NaN is the worst of all
        worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
        where = {i, j};
      }
    }
  if (worst > row.largest_error) row.largest_error = worst;
  if (worst < 0 || tolerance.allows(worst)) return;
  row.ok = false;
  const auto [i, j] = where;
  std::ostringstream message;
  message.precision(9);
  message << check << ": ours(" << i << ", " << j << ") = " << ours(i, j) << ", the peer's is " << peer(i, j)
          << ": off by ";
  message.precision(3);
  message << worst << ", tolerance " << tolerance.words();
  fail(message.str());
}

void Case::require(const std::string& check, bool holds) {
  auto& row = report_.check(check, "exact");
  ++numbers_compared_;
  ++row.numbers;
  if (holds) return;
  row.ok = false;
  row.largest_error = std::numeric_limits<double>::infinity();
  fail(check + ": does not hold");
}

std::vector<std::string> Case::array_names() const {
  std::vector<std::string> names;
  const std::string prefix = name_ + "/";
  for (const auto& [key, value] : arrays_.items())
    if (key.starts_with(prefix)) names.push_back(key.substr(prefix.size()));
  return names;
}

std::vector<std::string> Case::unread() const {
  std::vector<std::string> left;
  for (const auto& [parameter, value] : parameters_.items())
    if (!read_.contains(parameter) && !is_prose(parameter)) left.push_back("parameter " + parameter);
  for (const auto& array : array_names())
    if (!read_.contains(name_ + "/" + array)) left.push_back("array " + array);
  return left;
}

void Case::fail(const std::string& what) { report_.failures.push_back(report_.file + ", case " + name_ + ": " + what); }

}  // namespace golden
