// SPDX-License-Identifier: MIT

#include <posenc/version.hpp>

#include <string>

#include "../catch.hpp"

static_assert(POSENC_VERSION_MAJOR >= 0 && POSENC_VERSION_MINOR >= 0 && POSENC_VERSION_PATCH >= 0);

TEST_CASE("The version of the header is the one of the package", "[version]") {
  const std::string version = std::to_string(POSENC_VERSION_MAJOR) + "." + std::to_string(POSENC_VERSION_MINOR) + "." +
                              std::to_string(POSENC_VERSION_PATCH);
#if defined(POSENC_PACKAGE_VERSION)  // what CMake has read from the header
  CHECK(version == POSENC_PACKAGE_VERSION);
#endif
  CHECK(version.find_first_not_of("0123456789.") == std::string::npos);
}
