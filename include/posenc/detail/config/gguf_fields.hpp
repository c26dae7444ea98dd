// SPDX-License-Identifier: MIT
#pragma once

// Keys of GGUF metadata, looked up one by one, with their types and ranges checked.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <posenc/concepts.hpp>
#include <posenc/detail/check.hpp>
#include <posenc/detail/config/limits.hpp>
#include <posenc/gguf_values.hpp>

namespace posenc::inline v0::detail::config {

inline std::string gguf_shown(const GgufValue& value) {
  std::ostringstream text;
  text.precision(10);
  if (const auto* flag = std::get_if<bool>(&value)) text << (*flag ? "true" : "false");
  if (const auto* integer = std::get_if<std::int64_t>(&value)) text << *integer;
  if (const auto* number = std::get_if<double>(&value)) text << *number;
  if (const auto* string = std::get_if<std::string>(&value)) {
    constexpr std::size_t most = 60;
    text << '"' << string->substr(0, most) << (string->size() > most ? "...\"" : "\"");
  }
  if (const auto* list = std::get_if<std::vector<double>>(&value)) text << "a list of " << list->size();
  return text.str();
}

class GgufFields {
 public:
  explicit GgufFields(const GgufLookup& lookup) : lookup_(lookup) {}

  void set_architecture(const std::string& name) { prefix_ = name + "."; }

  /// "llama.rope.freq_base"
  std::string path(std::string_view key) const { return prefix_ + std::string(key); }

  std::optional<GgufValue> take(std::string_view key) {
    taken_.insert(path(key));
    return lookup_(path(key));
  }

  [[noreturn]] void refuse(const std::string& message) const {
    fail<std::invalid_argument>("posenc::gguf: " + message);
  }
  [[noreturn]] void refuse(std::string_view key, const std::string& rule, const GgufValue& got) const {
    refuse(path(key) + " " + rule + ", got " + gguf_shown(got));
  }
  [[noreturn]] void missing(std::string_view key) const { refuse(path(key) + " is missing"); }

  std::optional<double> number(std::string_view key, double least, double most) {
    const auto value = take(key);
    if (!value) return {};
    const auto* integer = std::get_if<std::int64_t>(&*value);
    const auto* real = std::get_if<double>(&*value);
    if (integer == nullptr && real == nullptr) refuse(key, "must be a number", *value);
    const double number = integer != nullptr ? static_cast<double>(*integer) : *real;
    if (!(number >= least && number <= most)) {  // and not for NaN
      std::ostringstream rule;
      rule << "must be from " << least << " to " << most;
      refuse(key, rule.str(), *value);
    }
    return number;
  }

  std::optional<Index> integer(std::string_view key, Index least, Index most) {
    const auto value = take(key);
    if (!value) return {};
    const auto* integer = std::get_if<std::int64_t>(&*value);
    if (integer == nullptr) refuse(key, "must be a whole number", *value);
    if (*integer < least || *integer > most)
      refuse(key, "must be from " + std::to_string(least) + " to " + std::to_string(most), *value);
    return static_cast<Index>(*integer);
  }
  Index needed(std::string_view key, Index most) {
    const auto value = integer(key, 1, most);
    if (!value) missing(key);
    return *value;
  }

  /// One number, or a list with the same for every layer.
  std::optional<Index> common(std::string_view key, Index least, Index most) {
    const auto value = take(key);
    if (!value) return {};
    const auto* list = std::get_if<std::vector<double>>(&*value);
    if (list == nullptr) return integer(key, least, most);
    for (const double entry : *list) {
      if (entry != list->front()) refuse(key, "must be the same for every layer", *value);
      if (!(entry >= static_cast<double>(least) && entry <= static_cast<double>(most)) || entry != std::floor(entry))
        refuse(key, "must have entries from " + std::to_string(least) + " to " + std::to_string(most), *value);
    }
    if (list->empty()) refuse(key, "must not be empty", *value);
    return static_cast<Index>(list->front());
  }

  std::optional<std::string> text(std::string_view key) {
    const auto value = take(key);
    if (!value) return {};
    const auto* text = std::get_if<std::string>(&*value);
    if (text == nullptr) refuse(key, "must be a string", *value);
    return *text;
  }

  bool is_taken(const std::string& whole_key) const { return taken_.count(whole_key) != 0; }
  const std::string& prefix() const { return prefix_; }

 private:
  const GgufLookup& lookup_;
  std::string prefix_;
  std::set<std::string> taken_;
};

}  // namespace posenc::inline v0::detail::config
