// SPDX-License-Identifier: MIT

#include <posenc/posenc.hpp>

posenc::Index number_of_tokens();  // in a.cpp

int main() { return number_of_tokens() == posenc::positions(3).size() ? 0 : 1; }
