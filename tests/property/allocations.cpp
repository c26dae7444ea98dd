// SPDX-License-Identifier: MIT

#include <cstddef>
#include <cstdlib>
#include <new>

namespace laws {
namespace {
thread_local std::size_t count = 0;
}
std::size_t allocations();
std::size_t allocations() { return count; }
}  // namespace laws

// The operators of the whole program, replaced as the standard allows it.

void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++laws::count;
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return operator new(size, std::nothrow); }
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
