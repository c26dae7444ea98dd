// SPDX-License-Identifier: MIT

// Linked with b.cpp, which includes the same: what is not inline in a header is then there twice.

#include <posenc/posenc.hpp>

posenc::Index number_of_tokens() { return posenc::positions(3).size(); }
