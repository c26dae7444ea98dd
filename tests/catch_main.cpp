// SPDX-License-Identifier: MIT

// main() of the tests for Catch2 2.13, which has none of its own to link with.

#define CATCH_CONFIG_MAIN
#include "catch.hpp"
