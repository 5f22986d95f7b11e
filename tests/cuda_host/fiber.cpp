#include "tests/cuda_host/fiber.h"

#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>

#include <deque>
#endif

namespace tessera::emulated {

#if defined(__x86_64__)

// What a function must preserve goes to the old stack, the stacks change places, and it comes back from the new one.
extern "C" void tessera_switch_fiber(void** from, void* to);
asm(R"(
.text
.globl tessera_switch_fiber
.type tessera_switch_fiber, @function
tessera_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_switch_fiber, .-tessera_switch_fiber
)");

Fiber make_fiber(std::byte* top, size_t, void (*entry)()) {
  auto** sp = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  *--sp = nullptr;  // where `entry` would return to; also keeps its stack aligned
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;  // the registers that the first switch pops
  return sp;
}

void switch_fiber(Fiber* from, Fiber to) { tessera_switch_fiber(from, to); }

#else

Fiber make_fiber(std::byte* top, size_t stack_bytes, void (*entry)()) {
  static std::deque<ucontext_t> contexts;  // addresses stay; re-used in turn
  static size_t next = 0;
  if (contexts.size() < 2048) contexts.emplace_back();
  ucontext_t* c = &contexts[next++ % contexts.size()];
  getcontext(c);
  c->uc_stack.ss_sp = top - stack_bytes;
  c->uc_stack.ss_size = stack_bytes;
  c->uc_link = nullptr;
  makecontext(c, entry, 0);
  return c;
}

void switch_fiber(Fiber* from, Fiber to) {
  ucontext_t mine;
  *from = &mine;
  swapcontext(&mine, to);
}

#endif

}  // namespace tessera::emulated
