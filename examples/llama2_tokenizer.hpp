// SPDX-License-Identifier: MIT
#pragma once

// The tokenizer of llama2.c: SentencePiece's byte-pair encoding, as data.
//
//   file     int32 longest piece in bytes, then for each token: float32 score, int32 length, the piece's bytes
//   tokens   0 unknown, 1 begin of sequence, 2 end of sequence, 3 ... 258 the bytes "<0x00>" ... "<0xFF>", then pieces

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "llama2_file.hpp"

namespace llama2 {

class Tokenizer {
 public:
  static constexpr int begin_of_sequence = 1;
  static constexpr int end_of_sequence = 2;
  static constexpr int first_byte = 3;  ///< token of the byte 0x00
  static constexpr int min_vocab_size = first_byte + 256;

  /// \param pieces the text of each token
  /// \param scores one for each piece; of the merges that are possible, that with the highest score is made first
  Tokenizer(std::vector<std::string> pieces, std::vector<float> scores)
      : pieces_(std::move(pieces)), scores_(std::move(scores)) {
    if (pieces_.size() < min_vocab_size)
      throw std::runtime_error("llama2::Tokenizer: three special tokens and 256 bytes are needed, got " +
                               std::to_string(pieces_.size()) + " tokens");
    if (scores_.size() != pieces_.size()) throw std::runtime_error("llama2::Tokenizer: each piece needs one score");
    for (int token = 0; token < vocab_size(); ++token) token_of_.try_emplace(pieces_[index(token)], token);
  }

  static bool is_byte(Eigen::Index token) { return token >= first_byte && token < min_vocab_size; }

  int vocab_size() const { return static_cast<int>(pieces_.size()); }

  /// Begin of sequence, then the tokens of a text. Any bytes are accepted; `decode` gives them back.
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> tokens{begin_of_sequence};
    if (text.empty()) return tokens;

    append_character(tokens, " ");  // a word has the same pieces at the start of a text as after a space
    while (!text.empty()) {
      std::size_t length = 1;  // of one character in UTF-8, whose bytes are 10xxxxxx from the second to the fourth
      while (length < 4 && length < text.size() && (text[length] & 0xC0) == 0x80) ++length;
      append_character(tokens, text.substr(0, length));
      text.remove_prefix(length);
    }

    while (merge_best_pair(tokens)) {
    }
    return tokens;
  }

  /// The text that a token adds after the token before it.
  std::string decode(int previous, int token) const {
    if (token < 0 || token >= vocab_size())
      throw std::out_of_range("llama2::Tokenizer: there is no token " + std::to_string(token));
    std::string text = is_byte(token) ? std::string{static_cast<char>(token - first_byte)} : pieces_[index(token)];
    if (previous == begin_of_sequence && text.starts_with(' ')) text.erase(0, 1);  // `encode` has put it there
    return text;
  }

  /// The text of a whole sequence that begins with begin_of_sequence.
  std::string decode(std::span<const int> tokens) const {
    std::string text;
    for (std::size_t i = 1; i < tokens.size(); ++i) text += decode(tokens[i - 1], tokens[i]);
    return text;
  }

 private:
  static std::size_t index(Eigen::Index token) { return static_cast<std::size_t>(token); }

  /// The token of a character, or where it has none, the tokens of its bytes.
  void append_character(std::vector<int>& tokens, std::string_view character) const {
    if (const auto found = token_of_.find(std::string(character)); found != token_of_.end())
      tokens.push_back(found->second);
    else
      for (const char byte : character) tokens.push_back(first_byte + static_cast<unsigned char>(byte));
  }

  /// Replaces the two neighbours whose joint piece has the highest score, the first of them where scores are equal.
  bool merge_best_pair(std::vector<int>& tokens) const {
    float best_score = -std::numeric_limits<float>::infinity();
    std::size_t best = tokens.size();
    int merged = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = token_of_.find(pieces_[index(tokens[i])] + pieces_[index(tokens[i + 1])]);
      if (found == token_of_.end() || scores_[index(found->second)] <= best_score) continue;
      best_score = scores_[index(found->second)];
      best = i;
      merged = found->second;
    }
    if (best == tokens.size()) return false;
    tokens[best] = merged;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    return true;
  }

  std::vector<std::string> pieces_;
  std::vector<float> scores_;
  std::unordered_map<std::string, int> token_of_;
};

namespace detail {

inline std::string byte_name(Eigen::Index byte) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[static_cast<std::size_t>(byte / 16)], digits[static_cast<std::size_t>(byte % 16)], '>'};
}

}  // namespace detail

/// \param vocab_size of the model; the file itself does not say how many tokens it holds
/// \throws std::runtime_error in one line if the file is not a tokenizer of just that many tokens.
inline Tokenizer load_tokenizer(const std::filesystem::path& path, Eigen::Index vocab_size) {
  BinaryFile file(path);
  if (vocab_size < Tokenizer::min_vocab_size)
    file.fail("a tokenizer has at least " + std::to_string(Tokenizer::min_vocab_size) +
              " tokens, the model has a vocabulary of " + std::to_string(vocab_size));

  const auto max_length = file.read<std::int32_t>("its header");
  if (max_length < 1 || max_length > 4096)
    file.fail("the longest piece must have 1 to 4096 bytes, got " + std::to_string(max_length));

  std::vector<std::string> pieces;
  std::vector<float> scores;
  for (Eigen::Index token = 0; token < vocab_size; ++token) {
    const std::string what = "token " + std::to_string(token) + " of " + std::to_string(vocab_size);
    const auto score = file.read<float>(what);
    if (!std::isfinite(score)) file.fail(what + " has a score that is not a finite number");
    const auto length = file.read<std::int32_t>(what);
    if (length < 0 || length > max_length)
      file.fail(what + " must have 0 to " + std::to_string(max_length) + " bytes, got " + std::to_string(length));
    std::string piece(static_cast<std::size_t>(length), '\0');
    file.read(std::span(piece), what);
    if (Tokenizer::is_byte(token) && piece != detail::byte_name(token - Tokenizer::first_byte))
      file.fail(what + " must be the byte " + detail::byte_name(token - Tokenizer::first_byte));
    scores.push_back(score);
    pieces.push_back(std::move(piece));
  }
  if (file.remaining() != 0)
    file.fail("goes on after token " + std::to_string(vocab_size) + ", the last one of the model's vocabulary");
  return {std::move(pieces), std::move(scores)};
}

}  // namespace llama2
