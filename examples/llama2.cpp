// SPDX-License-Identifier: MIT

// Tells a story with a pretrained model in the format of llama2.c, on posenc's RoPE and attention (llama2_model.hpp).
//
//   sh examples/run.sh llama2 stories260K.bin --prompt "Lily and Tom" --steps 256
//
// The model is not part of posenc: it is stories260K of karpathy/tinyllamas, trained with karpathy/llama2.c.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "llama2_model.hpp"
#include "llama2_tokenizer.hpp"

namespace {

struct Options {
  std::filesystem::path model, tokenizer;
  std::string prompt;
  Eigen::Index steps = 256;
  float temperature = 0;
  std::uint64_t seed = 1;
};

/// Fills in what was not named: files that are called as those of the model that llama2.c's manual begins with.
void find_files(Options& options) {
  if (options.model.empty()) {
    const char* folder = std::getenv("POSENC_MODELS");
    if (folder == nullptr || *folder == '\0')
      throw std::runtime_error(
          "no model: give the path of stories260K.bin, or set POSENC_MODELS to the folder that holds it and "
          "tok512.bin");
    options.model = folder;
  }
  if (std::filesystem::is_directory(options.model)) options.model /= "stories260K.bin";
  if (options.tokenizer.empty()) options.tokenizer = options.model.parent_path() / "tok512.bin";
}

/// The next token: the likeliest at temperature 0, else drawn with probabilities softmax(logits / temperature).
int sample(const Eigen::VectorXf& logits, float temperature, std::mt19937_64& random) {
  if (!logits.allFinite())
    throw std::runtime_error("the model's logits are not finite numbers: are its weights damaged?");
  Eigen::Index likeliest = 0;
  const float max = logits.maxCoeff(&likeliest);
  if (temperature == 0) return static_cast<int>(likeliest);

  const Eigen::ArrayXd weights = ((logits.array() - max).cast<double>() / temperature).exp();
  // Spelled out, because a distribution of the standard library draws other numbers on other systems.
  double rest = static_cast<double>(random() >> 11) * 0x1p-53 * weights.sum();
  for (Eigen::Index token = 0; token < weights.size(); ++token)
    if ((rest -= weights[token]) < 0) return static_cast<int>(token);
  return static_cast<int>(likeliest);
}

/// Control characters are left out: a terminal would obey them.
void print(std::string text) {
  std::erase_if(text, [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F; });
  std::cout << text << std::flush;
}

void run(Options options) {
  if (std::isnan(options.temperature)) throw std::runtime_error("the temperature must be a number");
  find_files(options);
  llama2::Model model(llama2::load_checkpoint(options.model));
  const auto tokenizer = llama2::load_tokenizer(options.tokenizer, model.config().vocab_size);

  const std::vector<int> prompt = tokenizer.encode(options.prompt);
  const auto prompt_size = static_cast<Eigen::Index>(prompt.size());
  if (prompt_size > model.config().seq_len)
    throw std::runtime_error("the prompt has " + std::to_string(prompt_size) + " tokens, the model can take " +
                             std::to_string(model.config().seq_len));
  const Eigen::Index steps = std::min(options.steps, model.config().seq_len);

  std::mt19937_64 random(options.seed);
  const auto start = std::chrono::steady_clock::now();
  Eigen::Index position = 0;
  for (int token = prompt[0]; position < steps; ++position) {
    const Eigen::VectorXf logits = model.forward(token, position);
    const bool in_prompt = position + 1 < prompt_size;
    const int next =
        in_prompt ? prompt[static_cast<std::size_t>(position) + 1] : sample(logits, options.temperature, random);
    if (next == llama2::Tokenizer::begin_of_sequence || next == llama2::Tokenizer::end_of_sequence) {
      ++position;
      break;  // the story is over
    }
    print(tokenizer.decode(token, next));
    token = next;
  }
  print("\n");
  if (!std::cout) throw std::runtime_error("the text cannot be written");

  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  std::cerr << position << " tokens, " << static_cast<double>(position) / elapsed.count() << " tokens/s\n";
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Tells a story with a pretrained Llama 2 model in the format of llama2.c.");
  app.add_option("model,-m,--model", options.model, "Checkpoint, or the folder of stories260K.bin [$POSENC_MODELS]");
  app.add_option("-t,--tokenizer", options.tokenizer, "Tokenizer [tok512.bin beside the model]");
  app.add_option("-p,--prompt", options.prompt, "How the story begins");
  app.add_option("-n,--steps", options.steps, "Tokens, those of the prompt included; at most what the model can take")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--temperature", options.temperature, "0: always the likeliest token; 1: as the model was trained")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  app.add_option("--seed", options.seed, "Of the dice, where the temperature is above 0")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  try {
    run(options);
  } catch (const std::bad_alloc&) {
    std::cerr << "llama2: there is not enough memory for this model\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "llama2: " << error.what() << '\n';
    return 1;
  }
}
