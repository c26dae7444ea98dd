// SPDX-License-Identifier: MIT
#pragma once

// Fields of a configuration, taken one by one: each with its type and range checked, and all that were not taken known
// in the end. Errors name the path of a field and what it holds.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/config/limits.hpp>

namespace posenc::inline v0::detail::config {

using Json = nlohmann::json;

/// A value as an error shows it: never more than a line.
inline std::string shown(const Json& value) {
  constexpr std::size_t most = 60;
  if (value.is_object()) return "an object of " + std::to_string(value.size()) + " fields";
  if (value.is_array()) return "a list of " + std::to_string(value.size());
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return Json(text.substr(0, most)).dump(-1, ' ', true, Json::error_handler_t::replace) +
           (text.size() > most ? "..." : "");
  }
  if (value.is_number_float() && !std::isfinite(value.get<double>()))
    return std::isnan(value.get<double>()) ? "nan" : "infinity";
  return value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, most);
}

[[noreturn]] inline void refuse(const std::string& message) {
  fail<std::invalid_argument>("posenc::config: " + message);
}

[[noreturn]] inline void refuse(const std::string& path, const std::string& rule, const Json& got) {
  refuse(path + " " + rule + ", got " + shown(got));
}

/// An object of a configuration. A field that is null counts as absent, but as taken.
class Fields {
 public:
  Fields(const Json& object, std::string path) : object_(&object), path_(std::move(path)) {
    if (!object.is_object()) refuse(path_.empty() ? "the configuration" : path_, "must be an object", object);
  }

  /// "rope_scaling.factor"
  std::string path(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }

  /// The field, marked as taken; nullptr if it is absent or null.
  const Json* take(std::string_view key) {
    const auto field = object_->find(std::string(key));
    if (field == object_->end()) return nullptr;
    taken_.emplace(key);
    return field->is_null() ? nullptr : &*field;
  }

  /// Whether it is there and not null. Does not count as taking it.
  bool has(std::string_view key) const {
    const auto field = object_->find(std::string(key));
    return field != object_->end() && !field->is_null();
  }

  bool is_null(std::string_view key) const {
    const auto field = object_->find(std::string(key));
    return field != object_->end() && field->is_null();
  }

  [[noreturn]] void refuse_field(std::string_view key, const std::string& rule) const {
    refuse(path(key), rule, object_->at(std::string(key)));
  }
  [[noreturn]] void missing(std::string_view key, std::string_view needed_by) const {
    refuse(path(key) + " is missing: " + std::string(needed_by) + " needs it");
  }

  std::optional<double> number(std::string_view key) {
    const Json* field = take(key);
    if (field == nullptr) return {};
    if (!field->is_number()) refuse_field(key, "must be a number");
    const auto value = field->get<double>();
    if (!std::isfinite(value)) refuse_field(key, "must be finite");
    return value;
  }
  std::optional<double> number(std::string_view key, double least, double most) {
    const auto value = number(key);
    if (value && *value < least) refuse_field(key, "must be at least " + Json(least).dump());
    if (value && *value > most) refuse_field(key, "must be at most " + Json(most).dump());
    return value;
  }
  std::optional<double> positive(std::string_view key, double most) {
    const auto value = number(key);
    if (value && *value <= 0) refuse_field(key, "must be positive");
    if (value && *value > most) refuse_field(key, "must be at most " + Json(most).dump());
    return value;
  }

  /// A whole number, written as one or as a decimal (8192.0).
  std::optional<Index> integer(std::string_view key, Index least, Index most) {
    const auto value = number(key);
    if (!value) return {};
    if (*value != std::floor(*value)) refuse_field(key, "must be a whole number");
    if (*value < static_cast<double>(least)) refuse_field(key, "must be at least " + std::to_string(least));
    if (*value > static_cast<double>(most)) refuse_field(key, "must be at most " + std::to_string(most));
    return static_cast<Index>(*value);
  }

  std::optional<bool> flag(std::string_view key) {
    const Json* field = take(key);
    if (field == nullptr) return {};
    if (!field->is_boolean()) refuse_field(key, "must be true or false");
    return field->get<bool>();
  }

  std::optional<std::string> text(std::string_view key) {
    const Json* field = take(key);
    if (field == nullptr) return {};
    if (!field->is_string()) refuse_field(key, "must be a string");
    return field->get<std::string>();
  }

  /// A list of `size` positive numbers.
  std::optional<Vector<double>> positives(std::string_view key, Index size) {
    const Json* field = take(key);
    if (field == nullptr) return {};
    if (!field->is_array()) refuse_field(key, "must be a list of numbers");
    if (static_cast<Index>(field->size()) != size)
      refuse_field(key, "must have " + std::to_string(size) + " entries, one a pair of rotary features");
    Vector<double> values(size);
    for (Index i = 0; i < size; ++i) {
      const Json& entry = (*field)[static_cast<std::size_t>(i)];
      const std::string where = path(key) + "[" + std::to_string(i) + "]";
      if (!entry.is_number()) refuse(where, "must be a number", entry);
      values[i] = entry.get<double>();
      if (!(values[i] > 0 && values[i] <= max_factor)) refuse(where, "must be positive and at most 1e9", entry);
    }
    return values;
  }

  std::optional<Fields> object(std::string_view key) {
    const Json* field = take(key);
    if (field == nullptr) return {};
    return Fields(*field, path(key));
  }

  /// One value that has several names: those that are there must agree.
  template <class Get>
  auto agreed(std::initializer_list<std::string_view> keys, Get get) -> decltype(get(std::string_view{})) {
    decltype(get(std::string_view{})) result;
    std::string_view first;
    for (const std::string_view key : keys) {
      const auto value = get(key);
      if (!value) continue;
      if (result && *result != *value)
        refuse_field(key, "contradicts " + path(first) + " = " + shown(object_->at(std::string(first))));
      if (!result) first = key;
      result = value;
    }
    return result;
  }
  std::optional<Index> integer(std::initializer_list<std::string_view> keys, Index least, Index most) {
    return agreed(keys, [&](std::string_view key) { return integer(key, least, most); });
  }

  /// Calls action(key, value) for every field.
  template <class Action>
  void for_each(Action action) const {
    for (auto field = object_->begin(); field != object_->end(); ++field) action(field.key(), *field);
  }

  bool is_taken(const std::string& key) const { return taken_.find(key) != taken_.end(); }
  std::size_t size() const { return object_->size(); }
  const Json& json() const { return *object_; }

 private:
  const Json* object_;
  std::string path_;
  std::set<std::string, std::less<>> taken_;
};

}  // namespace posenc::inline v0::detail::config
