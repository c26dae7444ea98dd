// SPDX-License-Identifier: MIT
#pragma once

// Text to JSON, for text that may be hostile: its size and depth are limited, and a key that is given twice, of which
// nlohmann::json would silently keep the last, is an error.

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <posenc/detail/config/fields.hpp>

namespace posenc::inline v0::detail::config {

inline constexpr std::size_t max_text_bytes = std::size_t{16} << 20;
inline constexpr std::size_t max_depth = 64;

/// Builds the value that a parser reports piece by piece.
class JsonBuilder : public nlohmann::json_sax<Json> {
 public:
  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(Json::number_integer_t value) override { return add(value); }
  bool number_unsigned(Json::number_unsigned_t value) override { return add(value); }
  bool number_float(Json::number_float_t value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Json& object = *open_.back();
    if (object.contains(name)) refuse(shown(name) + " is given twice in one object");
    next_ = &object[name];
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    constexpr std::size_t most = 200;  // the message quotes the text, which may be long
    const std::string message = error.what();
    refuse("not JSON at byte " + std::to_string(position) + ": " + message.substr(0, most) +
           (message.size() > most ? "..." : ""));
  }

 private:
  template <class Value>
  bool add(Value&& value) {
    place(std::forward<Value>(value));
    return true;
  }
  bool open(Json container) {
    if (open_.size() >= max_depth) refuse("is nested deeper than " + std::to_string(max_depth) + " levels");
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  template <class Value>
  Json* place(Value&& value) {
    if (open_.empty()) {
      root_ = Json(std::forward<Value>(value));
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(Json(std::forward<Value>(value)));
      return &open_.back()->back();
    }
    *next_ = Json(std::forward<Value>(value));
    return next_;
  }

  Json root_;
  Json* next_ = nullptr;     ///< the field whose value comes next
  std::vector<Json*> open_;  ///< the containers that are not closed yet; nothing is added to any but the last
};

/// \throws std::invalid_argument if the text is not JSON, larger than 16 MiB, or deeper than 64 levels.
inline Json parse(std::string_view text) {
  if (text.size() > max_text_bytes)
    refuse("the text must be at most " + std::to_string(max_text_bytes) + " bytes, got " + std::to_string(text.size()));
  JsonBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) refuse("not JSON");
  return builder.take();
}

/// A value that was made elsewhere must not be deeper than a text may be: what follows is recursive here and there.
inline void require_depth(const Json& value, std::size_t depth = 0) {
  if (!value.is_structured()) return;
  if (depth >= max_depth) refuse("is nested deeper than " + std::to_string(max_depth) + " levels");
  for (const Json& entry : value) require_depth(entry, depth + 1);
}

}  // namespace posenc::inline v0::detail::config
