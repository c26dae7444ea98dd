// SPDX-License-Identifier: MIT
#pragma once

// Sees every allocation: of operator new by replacing it (allocations.cpp), of Eigen, which calls malloc, by its
// assertion. So this is included before any header of Eigen.

#include <cstddef>
#include <stdexcept>

namespace laws {

/// What an assertion of Eigen throws in these tests.
struct EigenAssertion : std::logic_error {
  using std::logic_error::logic_error;
};
[[noreturn]] inline void eigen_assertion_failed(const char* condition) { throw EigenAssertion(condition); }

/// How often this thread has called operator new.
std::size_t allocations();

}  // namespace laws

#if defined(EIGEN_CORE_H) || defined(EIGEN_CORE_MODULE_H)
#error "allocations.hpp must be included before Eigen"
#endif
// A documented way to configure Eigen, as is EIGEN_RUNTIME_NO_MALLOC, which all tests are compiled with.
#define eigen_assert(condition) ((condition) ? void() : laws::eigen_assertion_failed(#condition))

#include <Eigen/Core>

namespace laws {

/// Runs an action; whether it allocated.
template <class Action>
bool allocates(const Action& action) {
  const std::size_t before = allocations();
  Eigen::internal::set_is_malloc_allowed(false);
  bool eigen_allocated = false;
  try {
    action();
  } catch (const EigenAssertion&) {
    eigen_allocated = true;
  }
  Eigen::internal::set_is_malloc_allowed(true);
  return eigen_allocated || allocations() != before;
}

}  // namespace laws
