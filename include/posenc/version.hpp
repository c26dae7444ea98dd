// SPDX-License-Identifier: MIT
#pragma once

/// The version of posenc: the one place it is written; CMake reads these three lines.
#define POSENC_VERSION_MAJOR 0
#define POSENC_VERSION_MINOR 1
#define POSENC_VERSION_PATCH 0
