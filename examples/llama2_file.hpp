// SPDX-License-Identifier: MIT
#pragma once

// Reading the binary files of llama2.c: little-endian numbers, one behind the other, without any marks in between. Such
// a file cannot be trusted to be whole, so every read is checked against the bytes that are left.

#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>

namespace llama2 {

static_assert(std::endian::native == std::endian::little, "llama2: the files are read as they lie on disk");

/// A file that is read from front to back. Whatever is wrong with it is a std::runtime_error of one line, which begins
/// with the file's name.
class BinaryFile {
 public:
  explicit BinaryFile(const std::filesystem::path& path) : name_(path.string()) {
    std::error_code error;
    size_ = std::filesystem::file_size(path, error);  // fails for a folder, too
    if (error) fail("cannot be read (" + error.message() + ")");
    stream_.open(path, std::ios::binary);
    if (!stream_) fail("cannot be opened");
  }

  std::uint64_t size() const { return size_; }                   ///< in bytes
  std::uint64_t remaining() const { return size_ - num_read_; }  ///< bytes that are not read yet

  /// Fills `entries` from the next bytes. `what` says what they are, for the message.
  template <class T>
  void read(std::span<T> entries, const std::string& what) {
    if (entries.size_bytes() > remaining()) fail("ends within " + what);
    const auto num_bytes = static_cast<std::streamsize>(entries.size_bytes());
    if (!stream_.read(reinterpret_cast<char*>(entries.data()), num_bytes)) fail("cannot be read: " + what);
    num_read_ += entries.size_bytes();
  }

  template <class T>
  T read(const std::string& what) {
    T value{};
    read(std::span(&value, 1), what);
    return value;
  }

  [[noreturn]] void fail(const std::string& problem) const { throw std::runtime_error(name_ + ": " + problem); }

 private:
  std::string name_;
  std::ifstream stream_;
  std::uint64_t size_ = 0;
  std::uint64_t num_read_ = 0;
};

}  // namespace llama2
