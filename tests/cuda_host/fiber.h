// Fibers: one for each CUDA thread of the running block. Switching is a few instructions on x86-64 and ucontext elsewhere.
#pragma once

#include <cstddef>

namespace tessera::emulated {

#if defined(__x86_64__)
using Fiber = void*;  // its stack pointer while it does not run
#else
using Fiber = struct ucontext_t*;
#endif

// A fiber that will run `entry` (which never returns) on the stack that ends at `top`.
Fiber make_fiber(std::byte* top, size_t stack_bytes, void (*entry)());

// Saves the running fiber to *from and goes on with `to`; returns when somebody switches back.
void switch_fiber(Fiber* from, Fiber to);

}  // namespace tessera::emulated
