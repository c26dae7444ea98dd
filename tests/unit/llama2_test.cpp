// SPDX-License-Identifier: MIT

// The model of examples/llama2.cpp: files that are damaged in every way we could think of, and the forward pass against
// plain loops in double. That the pretrained model says what llama2.c says is checked by golden_runner.

#include <algorithm>
#include <bit>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(POSENC_LLAMA2_PROGRAM)
#include <sys/wait.h>
#endif

#include "../../examples/llama2_model.hpp"
#include "../../examples/llama2_tokenizer.hpp"
#include "../catch.hpp"

namespace {

using Catch::Matchers::ContainsSubstring;

/// A folder that is gone at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() /
            ("posenc_llama2_test_" + std::to_string(random()) + std::to_string(random()));
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    const auto file = path_ / name;
    std::ofstream stream(file, std::ios::binary);
    stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    stream.close();
    if (!stream) throw std::runtime_error("cannot write " + file.string());
    return file;
  }
  std::filesystem::path path() const { return path_; }

 private:
  std::filesystem::path path_;
};

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
std::string with_value_at(std::string bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  return bytes;
}

/// What is wrong with a file: the message of the std::runtime_error that loading it ends with, which is to be one line
/// that begins with the file's name. "loaded" if there was none, "unclear: ..." if it is not such a line.
template <class Load>
std::string problem(const std::filesystem::path& path, const Load& load) {
  try {
    load(path);
  } catch (const std::runtime_error& error) {
    const std::string message = error.what();
    const std::string name = path.string() + ": ";
    const bool is_clear =
        message.starts_with(name) && message.size() > name.size() + 5 && message.find('\n') == std::string::npos;
    return is_clear ? message.substr(name.size()) : "unclear: " + message;
  }
  return "loaded";
}

bool is_rejected(const std::string& problem) { return problem != "loaded" && !problem.starts_with("unclear"); }

std::string checkpoint_problem(const std::filesystem::path& path) {
  return problem(path, [](const auto& p) { llama2::load_checkpoint(p); });
}

/// A checkpoint with random weights, written in the order of llama2.c by hand.
struct TinyModel {
  // All different, so that no two of them can be exchanged unnoticed.
  static constexpr int dim = 24, hidden = 10, layers = 3, heads = 6, kv_heads = 2, vocab = 20, seq_len = 12;
  static constexpr int head_dim = dim / heads, kv_dim = kv_heads * head_dim;

  struct Block {
    std::string name;
    std::vector<float> values;
  };

  explicit TinyModel(bool shares) : shares_classifier(shares) {
    std::mt19937 random(20260801);
    const auto block = [&](const char* name, int size, float centre = 0) {
      std::vector<float> values;
      for (int i = 0; i < size; ++i)
        values.push_back(centre + static_cast<float>(random() % 2001) / 2000.0f - 0.5f);  // centre +- 0.5
      blocks.push_back({name, values});
    };
    block("token_embedding", vocab * dim);
    block("attention_norm", layers * dim, 1);
    block("query", layers * dim * dim);
    block("key", layers * kv_dim * dim);
    block("value", layers * kv_dim * dim);
    block("attention_output", layers * dim * dim);
    block("feed_forward_norm", layers * dim, 1);
    block("gate", layers * hidden * dim);
    block("down", layers * dim * hidden);
    block("up", layers * hidden * dim);
    block("final_norm", dim, 1);
    block("rope_cos", seq_len * head_dim / 2);  // random: whoever uses them is found out
    block("rope_sin", seq_len * head_dim / 2);
    if (!shares_classifier) block("classifier", vocab * dim);
  }

  const std::vector<float>& values(const std::string& name) const {
    for (const Block& block : blocks)
      if (block.name == name) return block.values;
    throw std::runtime_error("no block " + name);
  }

  std::string file() const {
    std::string bytes;
    for (const int field : {dim, hidden, layers, heads, kv_heads, shares_classifier ? vocab : -vocab, seq_len})
      append(bytes, std::int32_t{field});
    for (const Block& block : blocks)
      for (const float value : block.values) append(bytes, value);
    return bytes;
  }

  bool shares_classifier;
  std::vector<Block> blocks;
};

/// The same model in double and plain loops, the whole sequence at once and no cache.
struct PlainLoops {
  using Rows = std::vector<std::vector<double>>;  // one token a row

  const TinyModel& model;
  Rows logits, last_query;
  std::vector<Rows> keys, values;  // of each layer
  std::vector<Rows> last_weights;  // of each head, a row for each query

  static std::vector<double> product(const std::vector<float>& weights, int layer, int out, int in,
                                     const std::vector<double>& x) {
    std::vector<double> y(static_cast<std::size_t>(out));
    for (int i = 0; i < out; ++i)
      for (int j = 0; j < in; ++j) y[i] += static_cast<double>(weights[(layer * out + i) * in + j]) * x[j];
    return y;
  }

  static std::vector<double> normalized(const std::vector<float>& weights, int layer, const std::vector<double>& x) {
    double mean_square = 0;
    for (const double value : x) mean_square += value * value / static_cast<double>(x.size());
    std::vector<double> y;
    for (std::size_t i = 0; i < x.size(); ++i)
      y.push_back(x[i] / std::sqrt(mean_square + 1e-5) * static_cast<double>(weights[layer * x.size() + i]));
    return y;
  }

  static void rotate(std::vector<double>& x, int position) {
    for (std::size_t i = 0; i < x.size(); i += 2) {
      const double angle =
          position * std::pow(10000.0, -static_cast<double>(i % TinyModel::head_dim) / TinyModel::head_dim);
      const double a = x[i], b = x[i + 1];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
  }

  PlainLoops(const TinyModel& m, const std::vector<int>& tokens) : model(m) {
    constexpr int dim = TinyModel::dim, kv_dim = TinyModel::kv_dim, hidden = TinyModel::hidden,
                  head_dim = TinyModel::head_dim, heads = TinyModel::heads, kv_heads = TinyModel::kv_heads;
    const std::size_t num_tokens = tokens.size();
    Rows x;
    for (const int token : tokens) {
      const float* row = m.values("token_embedding").data() + token * dim;
      x.emplace_back(row, row + dim);
    }
    for (int layer = 0; layer < TinyModel::layers; ++layer) {
      Rows q, k, v;
      for (std::size_t t = 0; t < num_tokens; ++t) {
        const auto normed = normalized(m.values("attention_norm"), layer, x[t]);
        q.push_back(product(m.values("query"), layer, dim, dim, normed));
        k.push_back(product(m.values("key"), layer, kv_dim, dim, normed));
        v.push_back(product(m.values("value"), layer, kv_dim, dim, normed));
        rotate(q[t], static_cast<int>(t));
        rotate(k[t], static_cast<int>(t));
      }
      last_weights.assign(heads, Rows(num_tokens));
      for (std::size_t t = 0; t < num_tokens; ++t) {
        std::vector<double> attended(dim);
        for (int head = 0; head < heads; ++head) {
          const int kv_head = head / (heads / kv_heads);
          std::vector<double> weights;
          double sum = 0;
          for (std::size_t n = 0; n <= t; ++n) {
            double score = 0;
            for (int i = 0; i < head_dim; ++i) score += q[t][head * head_dim + i] * k[n][kv_head * head_dim + i];
            weights.push_back(std::exp(score / std::sqrt(head_dim)));
            sum += weights.back();
          }
          for (std::size_t n = 0; n <= t; ++n) {
            weights[n] /= sum;
            for (int i = 0; i < head_dim; ++i)
              attended[head * head_dim + i] += weights[n] * v[n][kv_head * head_dim + i];
          }
          last_weights[head][t] = weights;
        }
        const auto update = product(m.values("attention_output"), layer, dim, dim, attended);
        for (int i = 0; i < dim; ++i) x[t][i] += update[i];
      }
      for (std::size_t t = 0; t < num_tokens; ++t) {
        const auto normed = normalized(m.values("feed_forward_norm"), layer, x[t]);
        auto inner = product(m.values("gate"), layer, hidden, dim, normed);
        const auto up = product(m.values("up"), layer, hidden, dim, normed);
        for (int i = 0; i < hidden; ++i) inner[i] = inner[i] / (1 + std::exp(-inner[i])) * up[i];
        const auto update = product(m.values("down"), layer, dim, hidden, inner);
        for (int i = 0; i < dim; ++i) x[t][i] += update[i];
      }
      keys.push_back(k);
      values.push_back(v);
      last_query = q;
    }
    const auto& classifier = m.values(m.shares_classifier ? "token_embedding" : "classifier");
    for (const auto& row : x)
      logits.push_back(product(classifier, 0, TinyModel::vocab, dim, normalized(m.values("final_norm"), 0, row)));
  }
};

double largest_difference(const auto& vector, const std::vector<double>& expected) {
  REQUIRE(static_cast<std::size_t>(vector.size()) == expected.size());
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(vector[static_cast<Eigen::Index>(i)]) - expected[i]));
  return largest;
}

const std::vector<int> some_tokens = {3, 19, 0, 7, 7, 12, 1, 5, 18, 2, 9, 4};

}  // namespace

TEST_CASE("llama2: the forward pass is that of plain loops in double", "[llama2]") {
  const bool shares_classifier = GENERATE(true, false);
  CAPTURE(shares_classifier);
  const TinyModel tiny(shares_classifier);
  const TemporaryFolder folder;
  llama2::Model model(llama2::load_checkpoint(folder.write("model.bin", tiny.file())));
  CHECK(model.config().shares_classifier == shares_classifier);
  REQUIRE(model.config().vocab_size == TinyModel::vocab);
  REQUIRE(model.config().seq_len == static_cast<Eigen::Index>(some_tokens.size()));

  const PlainLoops expected(tiny, some_tokens);
  const double tolerance = 2e-5;  // of values around 1 to 10, in float
  for (std::size_t t = 0; t < some_tokens.size(); ++t) {
    CAPTURE(t);
    const auto position = static_cast<Eigen::Index>(t);
    const Eigen::VectorXf logits = model.forward(some_tokens[t], position);
    CHECK(largest_difference(logits, expected.logits[t]) < tolerance);
    CHECK(largest_difference(model.last_query(), expected.last_query[t]) < tolerance);

    const auto weights = model.last_attention_weights();
    REQUIRE(weights.rows() == position + 1);
    REQUIRE(weights.cols() == TinyModel::heads);
    for (int head = 0; head < TinyModel::heads; ++head)
      CHECK(largest_difference(weights.col(head), expected.last_weights[static_cast<std::size_t>(head)][t]) <
            tolerance);
  }
  for (std::size_t layer = 0; layer < TinyModel::layers; ++layer)
    for (std::size_t t = 0; t < some_tokens.size(); ++t) {
      CAPTURE(layer, t);
      const auto l = static_cast<Eigen::Index>(layer), position = static_cast<Eigen::Index>(t);
      CHECK(largest_difference(model.cached_keys(l).col(position), expected.keys[layer][t]) < tolerance);
      CHECK(largest_difference(model.cached_values(l).col(position), expected.values[layer][t]) < tolerance);
    }
}

TEST_CASE("llama2: going back in the sequence forgets what came after", "[llama2]") {
  const TinyModel tiny(true);
  const TemporaryFolder folder;
  const auto checkpoint = llama2::load_checkpoint(folder.write("model.bin", tiny.file()));

  llama2::Model model(checkpoint), fresh(checkpoint);
  for (Eigen::Index t = 0; t < 8; ++t) model.forward(11, t);
  for (Eigen::Index t = 0; t < 5; ++t) fresh.forward(t < 3 ? 11 : 4, t);
  model.forward(4, 3);
  CHECK(model.cached_keys(0).cols() == 4);
  model.forward(4, 4);
  CHECK(model.cached_keys(TinyModel::layers - 1) == fresh.cached_keys(TinyModel::layers - 1));
  CHECK(model.forward(13, 5) == fresh.forward(13, 5));
}

TEST_CASE("llama2: a token or position that cannot be is refused, and nothing is changed", "[llama2]") {
  const TinyModel tiny(true);
  const TemporaryFolder folder;
  llama2::Model model(llama2::load_checkpoint(folder.write("model.bin", tiny.file())));

  CHECK_THROWS_AS(model.forward(0, 1), std::out_of_range);
  CHECK_THROWS_AS(model.forward(0, -1), std::out_of_range);
  CHECK_THROWS_AS(model.forward(-1, 0), std::out_of_range);
  CHECK_THROWS_AS(model.forward(TinyModel::vocab, 0), std::out_of_range);
  CHECK(model.cached_keys(0).cols() == 0);
  CHECK(model.last_attention_weights().size() == 0);
  for (Eigen::Index t = 0; t < TinyModel::seq_len; ++t) model.forward(0, t);
  CHECK_THROWS_AS(model.forward(0, TinyModel::seq_len), std::out_of_range);
  CHECK(model.cached_keys(0).cols() == TinyModel::seq_len);
}

TEST_CASE("llama2: a checkpoint that is cut off anywhere is refused, with the name of the block", "[llama2]") {
  const TinyModel tiny(GENERATE(true, false));
  const TemporaryFolder folder;
  const std::string bytes = tiny.file();
  REQUIRE(checkpoint_problem(folder.write("whole.bin", bytes)) == "loaded");

  std::vector<std::string> block_of_byte(28, "its header");
  for (const auto& block : tiny.blocks)
    block_of_byte.insert(block_of_byte.end(), block.values.size() * sizeof(float), "'" + block.name + "'");
  REQUIRE(block_of_byte.size() == bytes.size());

  const auto path = folder.write("cut.bin", bytes);
  std::size_t num_wrong = 0;
  for (std::size_t size = bytes.size(); size-- > 0;) {  // every prefix there is
    std::filesystem::resize_file(path, size);
    const std::string message = checkpoint_problem(path);
    if (is_rejected(message) && message.find("ends within") == 0 &&
        message.find(block_of_byte[size]) != std::string::npos)
      continue;
    UNSCOPED_INFO(size << " bytes: " << message << ", expected " << block_of_byte[size]);
    if (++num_wrong == 10) break;
  }
  CHECK(num_wrong == 0);
  CHECK_THAT(checkpoint_problem(folder.write("long.bin", bytes + '\0')), ContainsSubstring("1 bytes more"));
  CHECK_THAT(checkpoint_problem(folder.write("twice.bin", bytes + bytes)), ContainsSubstring("bytes more"));
}

TEST_CASE("llama2: a checkpoint with any damaged header field is refused", "[llama2]") {
  const TinyModel tiny(GENERATE(true, false));
  const TemporaryFolder folder;
  const std::string bytes = tiny.file();
  for (std::size_t field = 0; field < 7; ++field) {
    std::int32_t original = 0;
    std::memcpy(&original, bytes.data() + 4 * field, 4);
    std::vector<std::int32_t> damaged = {
        0,       -1,      1,      7,         INT_MIN,      INT_MIN + 1,  INT_MAX,      1 << 16,      1 << 20,
        1 << 24, 1 << 30, 0xFFFF, -original, original - 1, original + 1, original * 2, original / 2, original * 1001};
    for (int bit = 0; bit < 32; ++bit)
      damaged.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(original) ^ (1u << bit)));
    for (const std::int32_t value : damaged) {
      if (value == original) continue;
      const std::string message =
          checkpoint_problem(folder.write("damaged.bin", with_value_at(bytes, 4 * field, value)));
      CAPTURE(field, value, message);
      CHECK(is_rejected(message));
    }
  }
}

TEST_CASE("llama2: the message names the header field and its rule", "[llama2]") {
  const TemporaryFolder folder;
  const std::string bytes = TinyModel(true).file();
  const auto message = [&](std::size_t field, std::int32_t value) {
    return checkpoint_problem(folder.write("damaged.bin", with_value_at(bytes, 4 * field, value)));
  };
  CHECK(message(0, 0) == "dim must be from 1 to 65536, got 0");
  CHECK(message(1, -3) == "hidden_dim must be from 1 to 1048576, got -3");
  CHECK(message(2, INT_MAX) == "n_layers must be from 1 to 1024, got 2147483647");
  CHECK(message(3, INT_MIN) == "n_heads must be from 1 to 65536, got -2147483648");
  CHECK(message(3, 7) == "dim must be a multiple of n_heads, got 24 and 7");
  CHECK(message(3, 8) == "dim / n_heads must be even, got 24 and 8");
  CHECK(message(4, -1) == "n_kv_heads must be from 1 to 65536, got -1");
  CHECK(message(4, 4) == "n_heads must be a multiple of n_kv_heads, got 6 and 4");
  CHECK(message(5, 0) == "vocab_size must be from 1 to 16777216, got 0");
  CHECK(message(5, INT_MIN) == "vocab_size must be from 1 to 16777216, got -2147483648");
  CHECK(message(6, 0) == "seq_len must be from 1 to 16777216, got 0");
}

TEST_CASE("llama2: random headers and random bytes are refused", "[llama2]") {
  const TemporaryFolder folder;
  const std::string bytes = TinyModel(true).file();
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    std::string damaged = bytes;
    if (round % 2 == 0) {
      for (std::size_t i = 0; i < 28; ++i) damaged[i] = static_cast<char>(random());
    } else {  // fields that each pass for themselves
      for (std::size_t field = 0; field < 7; ++field)
        damaged = with_value_at(damaged, 4 * field, std::int32_t{1} << (random() % 17));
    }
    const std::string message = checkpoint_problem(folder.write("random.bin", damaged));
    CAPTURE(round, message);
    CHECK(is_rejected(message));
  }
}

TEST_CASE("llama2: weights that are not finite numbers are refused", "[llama2]") {
  const TemporaryFolder folder;
  const std::string bytes = TinyModel(false).file();
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
    for (const std::size_t offset : {std::size_t{28}, std::size_t{28 + 4 * 1000}, bytes.size() - 4})
      CHECK_THAT(checkpoint_problem(folder.write("damaged.bin", with_value_at(bytes, offset, value))),
                 ContainsSubstring("not a finite number"));
}

TEST_CASE("llama2: a file that is not there, or is a folder, is refused", "[llama2]") {
  const TemporaryFolder folder;
  CHECK_THAT(checkpoint_problem(folder.path() / "absent.bin"), ContainsSubstring("cannot be read"));
  CHECK_THAT(checkpoint_problem(folder.path()), ContainsSubstring("cannot be read"));
}

TEST_CASE("llama2: a checkpoint needs as many weights as its configuration says", "[llama2]") {
  llama2::Config config{
      .dim = 4, .hidden_dim = 1, .num_layers = 1, .num_heads = 1, .num_kv_heads = 1, .vocab_size = 1, .seq_len = 1};
  CHECK_THROWS_AS(llama2::Checkpoint(config, std::vector<float>(3)), std::runtime_error);
}

namespace {

struct TinyTokenizer {
  std::vector<std::string> pieces = {"<unk>", "\n<s>\n", "\n</s>\n"};
  std::vector<float> scores;

  TinyTokenizer() {
    for (int byte = 0; byte < 256; ++byte) {
      const char* digits = "0123456789ABCDEF";
      pieces.push_back(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
    }
    scores.assign(pieces.size(), 0.0f);
    // The order of the scores decides: "abc" is a + bc and not ab + c, as bc has the higher one.
    for (const auto& [piece, score] : std::vector<std::pair<std::string, float>>{{" ", -9},
                                                                                 {"a", -9},
                                                                                 {"b", -9},
                                                                                 {"c", -9},
                                                                                 {"\xC3\xA9", -9},
                                                                                 {"aa", -5},
                                                                                 {"ab", -4},
                                                                                 {"bc", -3},
                                                                                 {"abc", -5},
                                                                                 {" a", -6},
                                                                                 {" abc", -7}}) {
      pieces.push_back(piece);
      scores.push_back(score);
    }
  }

  int token(const std::string& piece) const {
    return static_cast<int>(std::find(pieces.begin(), pieces.end(), piece) - pieces.begin());
  }

  std::string file() const {
    std::string bytes;
    append(bytes, std::int32_t{6});  // "<0x00>"
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      append(bytes, scores[i]);
      append(bytes, static_cast<std::int32_t>(pieces[i].size()));
      bytes += pieces[i];
    }
    return bytes;
  }

  Eigen::Index vocab_size() const { return static_cast<Eigen::Index>(pieces.size()); }
};

std::string tokenizer_problem(const std::filesystem::path& path,
                              Eigen::Index vocab_size = TinyTokenizer().vocab_size()) {
  return problem(path, [&](const auto& p) { llama2::load_tokenizer(p, vocab_size); });
}

}  // namespace

TEST_CASE("llama2: text is merged into tokens by score", "[llama2]") {
  const TinyTokenizer tiny;
  const TemporaryFolder folder;
  const auto tokenizer = llama2::load_tokenizer(folder.write("tokenizer.bin", tiny.file()), tiny.vocab_size());
  CHECK(tokenizer.vocab_size() == tiny.vocab_size());
  const auto tokens = [&](const std::vector<std::string>& pieces) {
    std::vector<int> result{llama2::Tokenizer::begin_of_sequence};
    for (const auto& piece : pieces) result.push_back(tiny.token(piece));
    return result;
  };
  CHECK(tokenizer.encode("") == tokens({}));
  CHECK(tokenizer.encode("a") == tokens({" a"}));
  CHECK(tokenizer.encode(" a") == tokens({" ", " a"}));
  CHECK(tokenizer.encode("abc") == tokens({" abc"}));    // bc, abc, and then with the space
  CHECK(tokenizer.encode("ab") == tokens({" ", "ab"}));  // " ab" is no piece
  CHECK(tokenizer.encode("cabcab") == tokens({" ", "c", "abc", "ab"}));
  CHECK(tokenizer.encode("aaa") == tokens({" ", "aa", "a"}));  // of two equal pairs the first
  CHECK(tokenizer.encode("\xC3\xA9") == tokens({" ", "\xC3\xA9"}));
  CHECK(tokenizer.encode("\xC3\xAA") == tokens({" ", "<0xC3>", "<0xAA>"}));
  CHECK(tokenizer.encode("Z") == tokens({" ", "<0x5A>"}));
  CHECK(tokenizer.encode("\xF0\x9F\x98\x80\x80") == tokens({" ", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0x80>"}));

  CHECK(tokenizer.decode(llama2::Tokenizer::begin_of_sequence, tiny.token(" a")) == "a");
  CHECK(tokenizer.decode(tiny.token("a"), tiny.token(" a")) == " a");
  CHECK(tokenizer.decode(tiny.token("a"), tiny.token("<0x0A>")) == "\n");
  CHECK_THROWS_AS(tokenizer.decode(0, -1), std::out_of_range);
  CHECK_THROWS_AS(tokenizer.decode(0, tokenizer.vocab_size()), std::out_of_range);
}

TEST_CASE("llama2: any bytes come back from their tokens", "[llama2]") {
  const TinyTokenizer tiny;
  const bool has_space = GENERATE(true, false);
  auto pieces = tiny.pieces;
  if (!has_space) pieces[static_cast<std::size_t>(tiny.token(" "))] = "no space";
  const llama2::Tokenizer tokenizer(pieces, tiny.scores);

  std::mt19937 random(11);
  const std::string letters = "aabbcc  \xC3\xA9\xF0";
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (std::size_t i = random() % 40; i > 0; --i)
      text += round % 2 == 0 ? static_cast<char>(random()) : letters[random() % letters.size()];
    CAPTURE(round, text.size());
    CHECK((tokenizer.decode(tokenizer.encode(text)) == text));
  }
}

TEST_CASE("llama2: a tokenizer that is cut off anywhere is refused", "[llama2]") {
  const TinyTokenizer tiny;
  const TemporaryFolder folder;
  const std::string bytes = tiny.file();
  const auto path = folder.write("tokenizer.bin", bytes);
  REQUIRE(tokenizer_problem(path) == "loaded");
  std::size_t num_wrong = 0;
  for (std::size_t size = bytes.size(); size-- > 0;) {
    std::filesystem::resize_file(path, size);
    const std::string message = tokenizer_problem(path);
    if (is_rejected(message) && message.find("ends within") == 0) continue;
    UNSCOPED_INFO(size << " bytes: " << message);
    if (++num_wrong == 10) break;
  }
  CHECK(num_wrong == 0);
  CHECK_THAT(tokenizer_problem(folder.write("long.bin", bytes + "x")), ContainsSubstring("goes on after token 270"));
}

TEST_CASE("llama2: a tokenizer with any damaged length, score or byte is refused", "[llama2]") {
  const TinyTokenizer tiny;
  const TemporaryFolder folder;
  const std::string bytes = tiny.file();
  const auto check_rejected = [&](std::size_t offset, auto value) {
    const std::string message = tokenizer_problem(folder.write("damaged.bin", with_value_at(bytes, offset, value)));
    CAPTURE(offset, value, message);
    CHECK(is_rejected(message));
  };
  for (const std::int32_t longest : {0, -1, 1, 5, INT_MIN, INT_MAX, 1 << 20}) check_rejected(0, longest);

  std::size_t offset = 4;
  for (std::size_t token = 0; token < tiny.pieces.size(); ++token) {
    const auto length = static_cast<std::int32_t>(tiny.pieces[token].size());
    const std::size_t next_offset = offset + 8 + tiny.pieces[token].size();
    const bool is_one_of_many = token >= 16 && token < 248 && token % 16 != 0;  // the bytes are all alike
    if (is_one_of_many) {
      offset = next_offset;
      continue;
    }
    check_rejected(offset, std::numeric_limits<float>::quiet_NaN());
    check_rejected(offset, -std::numeric_limits<float>::infinity());
    for (const std::int32_t damaged : {-1, INT_MIN, INT_MAX, 0, length - 1, length + 1, 7, 1 << 16})
      if (damaged != length) check_rejected(offset + 4, damaged);
    if (token >= 3 && token < 259) check_rejected(offset + 8 + 3, 'x');
    offset = next_offset;
  }
  CHECK(offset == bytes.size());
}

TEST_CASE("llama2: a tokenizer of another model is refused", "[llama2]") {
  const TinyTokenizer tiny;
  const TemporaryFolder folder;
  const auto path = folder.write("tokenizer.bin", tiny.file());
  CHECK_THAT(tokenizer_problem(path, tiny.vocab_size() - 1), ContainsSubstring("goes on"));
  CHECK_THAT(tokenizer_problem(path, tiny.vocab_size() + 1), ContainsSubstring("ends within token 270 of 271"));
  for (const Eigen::Index vocab_size : {0, 1, 258})
    CHECK_THAT(tokenizer_problem(path, vocab_size), ContainsSubstring("at least 259 tokens"));
  CHECK_THAT(tokenizer_problem(folder.path() / "absent.bin"), ContainsSubstring("cannot be read"));
  CHECK_THROWS_AS(llama2::Tokenizer({"a"}, {0}), std::runtime_error);
  CHECK_THROWS_AS(llama2::Tokenizer(tiny.pieces, {0}), std::runtime_error);
}

namespace {

/// The folder of the pretrained model, or an empty path, which is said loudly.
std::filesystem::path models_folder() {
  const char* folder = std::getenv("POSENC_MODELS");
  if (folder != nullptr && *folder != '\0') return folder;
  WARN(
      "SKIPPED: no pretrained model. Set POSENC_MODELS to the folder of stories260K.bin and tok512.bin to run this "
      "test.");
  return {};
}

const std::string story =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball.";

}  // namespace

TEST_CASE("llama2: the pretrained model tells its story", "[llama2]") {
  const auto folder = models_folder();
  if (folder.empty()) return;
  llama2::Model model(llama2::load_checkpoint(folder / "stories260K.bin"));
  const auto tokenizer = llama2::load_tokenizer(folder / "tok512.bin", model.config().vocab_size);

  std::vector<int> tokens = tokenizer.encode("");
  std::string text;
  while (text.size() < story.size()) {
    const Eigen::VectorXf logits = model.forward(tokens.back(), static_cast<Eigen::Index>(tokens.size()) - 1);
    Eigen::Index likeliest = 0;
    logits.maxCoeff(&likeliest);
    tokens.push_back(static_cast<int>(likeliest));
    text = tokenizer.decode(tokens);
  }
  CHECK(text == story);
  CHECK(tokenizer.encode(story) == tokens);
}

#if defined(POSENC_LLAMA2_PROGRAM)

namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

struct Outcome {
  int status;
  std::string out, err;
};

/// Runs examples/llama2 with arguments as a shell takes them.
Outcome run_program(const TemporaryFolder& folder, const std::string& arguments) {
  const auto out = folder.path() / "out", err = folder.path() / "err";
  const std::string command =
      std::string("'") + POSENC_LLAMA2_PROGRAM + "' " + arguments + " >'" + out.string() + "' 2>'" + err.string() + "'";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

void check_one_clear_line(const Outcome& outcome) {
  CAPTURE(outcome.out, outcome.err);
  CHECK(outcome.status == 1);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.starts_with("llama2: "));
  CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
  CHECK(outcome.err.ends_with('\n'));
}

}  // namespace

TEST_CASE("llama2: the program ends with one clear line where a file is damaged or absent", "[llama2]") {
  const TemporaryFolder folder;
  const std::string bytes = TinyModel(true).file();
  const auto name = [](const std::filesystem::path& path) { return "'" + path.string() + "'"; };

  check_one_clear_line(run_program(folder, name(folder.path() / "absent.bin")));
  check_one_clear_line(run_program(folder, name(folder.path())));
  for (const std::size_t size : {std::size_t{0}, std::size_t{13}, std::size_t{28}, bytes.size() / 2, bytes.size() - 1})
    check_one_clear_line(run_program(folder, name(folder.write("cut.bin", bytes.substr(0, size)))));
  for (std::size_t field = 0; field < 7; ++field)
    check_one_clear_line(
        run_program(folder, name(folder.write("damaged.bin", with_value_at(bytes, 4 * field, INT_MIN)))));
  check_one_clear_line(run_program(folder, name(folder.write("model.bin", bytes))));  // has no tokenizer

  const std::string no_model = POSENC_LLAMA2_PROGRAM;
  const Outcome outcome = [&] {
    const auto err = folder.path() / "err";
    const int status = std::system(("env -u POSENC_MODELS '" + no_model + "' 2>'" + err.string() + "'").c_str());
    return Outcome{WIFEXITED(status) ? WEXITSTATUS(status) : -1, "", read_file(err)};
  }();
  check_one_clear_line(outcome);
  CHECK_THAT(outcome.err, ContainsSubstring("POSENC_MODELS"));
}

TEST_CASE("llama2: the program tells the story", "[llama2]") {
  if (models_folder().empty()) return;
  const TemporaryFolder folder;

  const Outcome greedy = run_program(folder, "--steps 60");
  CAPTURE(greedy.err);
  CHECK(greedy.status == 0);
  CHECK_THAT(greedy.out, Catch::Matchers::StartsWith(story.substr(0, 100)));
  CHECK_THAT(greedy.err, ContainsSubstring("tokens/s"));

  CHECK_THAT(run_program(folder, "--prompt 'Lily and Tom' --steps 40").out,
             Catch::Matchers::StartsWith("Lily and Tom were playing in the park."));

  const Outcome first = run_program(folder, "--steps 60 --temperature 1 --seed 5"),
                again = run_program(folder, "--steps 60 --temperature 1 --seed 5"),
                other = run_program(folder, "--steps 60 --temperature 1 --seed 6");
  CHECK(first.status == 0);
  CHECK(first.out == again.out);
  CHECK(first.out != other.out);
}

#endif
