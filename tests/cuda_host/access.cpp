#include "tests/cuda_host/access.h"

#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "tests/cuda_host/machine.h"

extern "C" char __executable_start, end;

namespace tessera::emulated {

constinit AccessChecker access_checker;

namespace {

constexpr uint8_t kSeveral = 255, kSeveralOfGroup = 64;
constexpr unsigned kWarpsOfGroup = 4;
unsigned group_of(const Access& a) { return a.warp < kSeveralOfGroup ? a.warp / kWarpsOfGroup : a.warp - kSeveralOfGroup; }

const char* name_of(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead: return "read";
    case AccessKind::kWrite: return "write";
    case AccessKind::kAtomic: return "atomic operation";
    case AccessKind::kCopyBegins:
    case AccessKind::kCopyIsThere: return "copy";
    default: return "product";
  }
}

bool only_reads(AccessKind kind) { return kind == AccessKind::kRead || kind == AccessKind::kProduct; }
bool only_writes(AccessKind kind) {
  return kind == AccessKind::kWrite || kind == AccessKind::kCopyBegins || kind == AccessKind::kCopyIsThere;
}

// What addr2line says about addresses, from the start of the program: its lines. Empty: there is none.
std::vector<std::string> asked_addr2line(const std::string& options, const std::vector<uintptr_t>& places) {
  uintptr_t bias = 0;  // of addresses in memory over those in the file
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* p) {
        *static_cast<uintptr_t*>(p) = info->dlpi_addr;
        return 1;
      },
      &bias);
  char program[4096] = "";
  if (readlink("/proc/self/exe", program, sizeof program - 1) <= 0) return {};
  std::string command = "addr2line " + options + " -e '" + program + "'";
  for (uintptr_t place : places) {
    char address[32];
    std::snprintf(address, sizeof address, " 0x%zx", size_t(reinterpret_cast<uintptr_t>(&__executable_start) + place - bias));
    command += address;
  }
  std::vector<std::string> said;
  if (FILE* const lines = popen((command + " 2>/dev/null").c_str(), "r")) {
    char line[4096];
    while (std::fgets(line, sizeof line, lines) != nullptr) {
      said.emplace_back(line);
      said.back().resize(said.back().find_last_not_of('\n') + 1);
    }
    pclose(lines);
  }
  return said;
}

// "reduce.cu:64", or "element.cuh:30 in reduce.cu:64" where functions were inlined.
std::string source_of(uint32_t place) {
  static std::map<uint32_t, std::string> known;
  std::string& text = known[place];
  if (!text.empty()) return text;
  int depth = 0;
  for (std::string where : asked_addr2line("-i", {place})) {
    if (++depth > 4) break;
    where.resize(std::min(where.find(' '), where.size()));
    where.erase(0, where.rfind('/') + 1);
    if (where.starts_with('?')) continue;
    text += (text.empty() ? "" : " in ") + where;
    if (where.find(".cu:") != where.npos) break;  // the kernel's own file
  }
  if (text.empty()) {
    char address[32];
    std::snprintf(address, sizeof address, "address 0x%x", place);
    text = address;
  }
  return text;
}

}  // namespace

std::vector<std::string> function_names(const std::vector<const void*>& functions) {
  std::vector<uintptr_t> places;
  for (const void* f : functions) places.push_back(reinterpret_cast<uintptr_t>(f) - reinterpret_cast<uintptr_t>(&__executable_start));
  const std::vector<std::string> said = asked_addr2line("-fC", places);  // a line for the name, one for the source
  std::vector<std::string> names;
  for (size_t i = 0; i < functions.size(); ++i) {
    std::string name = 2 * i < said.size() ? said[2 * i] : "?";
    constexpr std::string_view kNobodys = "(anonymous namespace)::";
    for (size_t at; (at = name.find(kNobodys)) != name.npos;) name.erase(at, kNobodys.size());
    name.resize(std::min(name.find_first_of("<("), name.size()));
    names.push_back(name.substr(name.find_last_of(" :") + 1));
  }
  return names;
}

void AccessChecker::memory(const uint8_t* arena, size_t arena_bytes, const std::byte* stacks, size_t stack_bytes) {
  arena_ = arena;
  arena_bytes_ = arena_bytes;
  stacks_ = stacks;
  stack_bytes_ = stack_bytes;
  if (instrumented) shadow_.resize(arena_bytes);
}

void AccessChecker::begin_launch(const void* argument, size_t argument_bytes) {
  regions_.clear();
  argument_ = static_cast<const std::byte*>(argument);
  argument_bytes_ = argument_bytes;
  launch_began_ = interval_ + 1;
  words_.clear();
}

void AccessChecker::begin_block() {
  block_began_ = met_ = ++interval_;
  std::fill(std::begin(group_met_), std::end(group_met_), 0u);
  std::fill(std::begin(warp_interval_), std::end(warp_interval_), 0u);
  std::fill(std::begin(published_), std::end(published_), 0u);
  std::fill(std::begin(fenced_), std::end(fenced_), 0u);
  received_.clear();
}

void AccessChecker::fence() {
  fenced_[thread_] = interval_;
  met_at_fence_[thread_] = met_;
  for (Received& r : received_) {
    if (r.thread == thread_ && r.fenced == 0) r.fenced = interval_;
  }
}

void AccessChecker::meet_others(const void* word) {
  if (!in_kernel || !instrumented) return;
  const bool fenced = fenced_[thread_] != 0;
  in_kernel = false;  // as in access()
  auto met = std::find_if(words_.begin(), words_.end(), [&](const Word& w) { return w.at == word; });
  if (met == words_.end() && fenced) met = words_.insert(met, {word, {}});
  if (met != words_.end()) {
    const size_t before = received_.size();
    for (const Work& w : met->left) {
      if (w.began != block_began_) received_.push_back({w, thread_});
    }
    if (fenced) met->left.push_back({block_began_, fenced_[thread_], met_at_fence_[thread_], thread_});
    for (size_t i = 0; fenced && i < before; ++i) {  // handed on
      const Received& r = received_[i];
      if (r.fenced != 0 && (r.thread == thread_ || r.fenced < met_at_fence_[thread_])) met->left.push_back(r.work);
    }
  }
  in_kernel = true;
}

bool AccessChecker::handed_over(const Access& before) const {
  return std::any_of(received_.begin(), received_.end(), [&](const Received& r) {
    const Work& w = r.work;
    const bool there = r.fenced != 0 && (r.thread == thread_ || r.fenced < met_);
    const bool own = before.warp * 32u + before.lane == w.thread;
    return there && before.interval >= w.began && (before.interval < w.met || (before.interval <= w.fenced && own));
  });
}

void AccessChecker::add_region(size_t begin, size_t bytes, const char* name) { regions_.push_back({begin, bytes, name}); }

// Whether nothing stands between an earlier access and one by the running thread. `first`: the interval that memory goes back to.
bool AccessChecker::unordered(const Access& before, uint32_t first) const {
  if (before.interval < first) return false;
  if (before.interval < block_began_) return !handed_over(before);  // by another block
  if (before.interval < met_) return false;
  const unsigned warp = thread_ / 32;
  if (group_of(before) == warp / kWarpsOfGroup && before.interval < group_met_[warp / kWarpsOfGroup]) return false;
  return before.warp != warp || (before.lane != thread_ % 32 && before.warp_interval == warp_interval_[warp]);
}

const Access* AccessChecker::conflict(const Shadow& s, AccessKind kind, uint32_t first) const {
  if (kind == AccessKind::kCopyIsThere) return nullptr;  // all that came since it began has been reported
  if (!(kind == AccessKind::kAtomic && s.write.atomic) && unordered(s.write, first)) return &s.write;
  if (only_reads(kind)) return nullptr;
  if (unordered(s.read, first) || (s.read.interval >= first && s.read.other_blocks)) return &s.read;
  return nullptr;
}

void AccessChecker::remember(Shadow& s, AccessKind kind, uint32_t first, uint32_t place) const {
  const unsigned warp = thread_ / 32;
  const Access mine{interval_, warp_interval_[warp], place, uint8_t(warp), uint8_t(thread_ % 32), kind == AccessKind::kAtomic,
                    false, kind == AccessKind::kCopyBegins};
  if (!only_reads(kind)) {
    s.write = mine;
    return;
  }
  const Access before = s.read;
  s.read = mine;
  s.read.other_blocks = before.interval >= first && (before.other_blocks || before.interval < block_began_);
  if (before.interval != interval_) return;
  if (before.warp != mine.warp) {
    s.read.warp = group_of(before) == group_of(mine) ? uint8_t(kSeveralOfGroup + group_of(mine)) : kSeveral;
  }
  if (before.warp != mine.warp || (before.lane != mine.lane && before.warp_interval == mine.warp_interval)) s.read.lane = kSeveral;
}

std::string AccessChecker::race(AccessKind kind, uint32_t place, const Shadow& s, const Access& before) const {
  const bool other_block = before.interval < block_began_ || before.other_blocks;
  std::string who = other_block               ? "another block"
                    : before.warp >= kSeveralOfGroup ? "several warps"
                                              : "warp " + std::to_string(before.warp);
  if (!other_block && before.lane != kSeveral) who += " lane " + std::to_string(before.lane);
  const char* const what = &before == &s.read ? "read" : before.atomic ? "atomic operation" : "write";
  return std::string("this ") + name_of(kind) + " at " + source_of(place) + " and a " + what + " by " + who + " at " +
         source_of(before.place) + (other_block ? "" : ", no barrier between them");
}

void AccessChecker::shared(size_t offset, size_t bytes, AccessKind kind, uint32_t place) {
  const auto r = std::find_if(regions_.begin(), regions_.end(), [&](const Region& region) {
    return offset >= region.begin && offset + bytes <= region.begin + region.bytes;
  });
  if (r == regions_.end()) {
    const Region* near = nullptr;  // the variable before it
    for (const Region& region : regions_) {
      if (region.begin <= offset) near = &region;
    }
    report("%s outside shared memory: %zu bytes at byte %td of '%s' (%zu bytes) at %s", name_of(kind), bytes,
           near ? std::ptrdiff_t(offset - near->begin) : std::ptrdiff_t(offset), near ? near->name : "the block",
           near ? near->bytes : 0, source_of(place).c_str());
    abandon_launch();
  }
  if (!instrumented) return;  // an atomic access, the only kind that comes here then
  for (size_t i = 0; i < bytes; ++i) {
    Shadow& s = shadow_[offset + i];
    if (!only_writes(kind) && s.write.interval < block_began_) {
      report("read of shared '%s', byte %zu, which nobody has written in this block, at %s", r->name, offset + i - r->begin,
             source_of(place).c_str());
      abandon_launch();
    }
    if (kind != AccessKind::kCopyIsThere && s.write.copying && s.write.interval >= block_began_) {
      report("%s of shared '%s', byte %zu, while a copy into it goes on, begun at %s, at %s", name_of(kind), r->name,
             offset + i - r->begin, source_of(s.write.place).c_str(), source_of(place).c_str());
      abandon_launch();
    }
    if (kind == AccessKind::kProduct && published_[s.write.warp * 32 + s.write.lane] < s.write.interval) {
      report("a product reads shared '%s', byte %zu, which was written at %s and not published, at %s", r->name,
             offset + i - r->begin, source_of(s.write.place).c_str(), source_of(place).c_str());
      abandon_launch();
    }
    if (const Access* const before = conflict(s, kind, block_began_)) {
      report("race on shared '%s', byte %zu: %s", r->name, offset + i - r->begin, race(kind, place, s, *before).c_str());
      abandon_launch();
    }
    remember(s, kind, block_began_, place);
  }
}

void AccessChecker::device(const std::byte* p, size_t bytes, AccessKind kind, uint32_t place) {
  if (ahead) {
    report("%s of device memory by a thread that has not waited for the kernel before, at %s", name_of(kind),
           source_of(place).c_str());
    abandon_launch();
  }
  Buffer* const b = buffer_before(p);
  if (b == nullptr || p + bytes > b->begin + b->bytes) {
    if (b == nullptr) {
      report("%s of %zu bytes of device memory outside any buffer at %s", name_of(kind), bytes, source_of(place).c_str());
    } else {
      report("%s outside device memory: %zu bytes at byte %td of a buffer of %zu at %s", name_of(kind), bytes, p - b->begin,
             b->bytes, source_of(place).c_str());
    }
    abandon_launch();
  }
  if (b->shadow == nullptr) b->shadow = static_cast<Shadow*>(std::calloc(b->bytes, sizeof(Shadow)));
  if (b->shadow == nullptr) std::abort();
  for (size_t i = 0; i < bytes; ++i) {
    const size_t at = size_t(p - b->begin) + i;
    if (const Access* const before = conflict(b->shadow[at], kind, launch_began_)) {
      report("race on a device buffer of %zu bytes, byte %zu: %s", b->bytes, at, race(kind, place, b->shadow[at], *before).c_str());
      abandon_launch();
    }
    remember(b->shadow[at], kind, launch_began_, place);
  }
}

void AccessChecker::access(const void* p, size_t bytes, AccessKind kind, const void* from) {
  if (!in_kernel) return;
  const auto* const b = static_cast<const std::byte*>(p);
  const char* const in_program = static_cast<const char*>(p);
  if (size_t(b - stacks_) < stack_bytes_ || size_t(b - argument_) < argument_bytes_) return;
  const size_t offset = size_t(static_cast<const uint8_t*>(p) - arena_);                         // in shared memory
  if (offset >= arena_bytes_ && in_program >= &__executable_start && in_program < &end) return;  // constants, built-in variables
  in_kernel = false;  // the functions of the standard library that follow may be instrumented ones
  const auto place = uint32_t(static_cast<const char*>(from) - 1 - &__executable_start);
  if (offset < arena_bytes_) {
    shared(offset, bytes, kind, place);
  } else if (is_device_address(p)) {
    device(b, bytes, kind, place);
  } else {
    report("%s of host memory by a kernel at %s", name_of(kind), source_of(place).c_str());
    abandon_launch();
  }
  in_kernel = true;
}

void touch_atomic(const void* p, size_t bytes, const void* from) {
  access_checker.access(p, bytes, AccessKind::kAtomic, from);
  access_checker.meet_others(p);
}

namespace {
void access_aligned(const void* p, size_t bytes, AccessKind kind, const void* from) {
  if (access_checker.in_kernel && reinterpret_cast<uintptr_t>(p) % bytes != 0) {
    access_checker.in_kernel = false;
    report("misaligned %s of %zu bytes at %s", name_of(kind), bytes,
           source_of(uint32_t(static_cast<const char*>(from) - 1 - &__executable_start)).c_str());
    abandon_launch();
  }
  access_checker.access(p, bytes, kind, from);
}
}  // namespace

}  // namespace tessera::emulated

// ---- what instrumented code calls
// ----------------------------------------------------------------------------------------------------------------

using tessera::emulated::access_aligned;
using tessera::emulated::access_checker;
using tessera::emulated::AccessKind;

extern "C" {

void __tsan_init() { access_checker.instrumented = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}

#define TESSERA_HOOKS(n)                                                                                                    \
  void __tsan_read##n(void* p) { access_aligned(p, n, AccessKind::kRead, __builtin_return_address(0)); }                    \
  void __tsan_write##n(void* p) { access_aligned(p, n, AccessKind::kWrite, __builtin_return_address(0)); }                  \
  void __tsan_unaligned_read##n(void* p) { access_checker.access(p, n, AccessKind::kRead, __builtin_return_address(0)); }   \
  void __tsan_unaligned_write##n(void* p) { access_checker.access(p, n, AccessKind::kWrite, __builtin_return_address(0)); } \
  void __tsan_volatile_read##n(void* p) { access_aligned(p, n, AccessKind::kRead, __builtin_return_address(0)); }           \
  void __tsan_volatile_write##n(void* p) { access_aligned(p, n, AccessKind::kWrite, __builtin_return_address(0)); }
TESSERA_HOOKS(1)
TESSERA_HOOKS(2)
TESSERA_HOOKS(4)
TESSERA_HOOKS(8)
TESSERA_HOOKS(16)
void __tsan_read_range(void* p, size_t n) { access_checker.access(p, n, AccessKind::kRead, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { access_checker.access(p, n, AccessKind::kWrite, __builtin_return_address(0)); }

// Host code in the same files (reference counts, guards of static variables): plain atomics.
#define TESSERA_ATOMICS(bits)                                                                                                    \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* p, int) {                                             \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                                                 \
  }                                                                                                                              \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* p, uint##bits##_t v, int) {                                          \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                                                    \
  }                                                                                                                              \
  uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t* p, uint##bits##_t v, int) {                             \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                                          \
  }                                                                                                                              \
  uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t* p, uint##bits##_t v, int) {                            \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                                           \
  }                                                                                                                              \
  uint##bits##_t __tsan_atomic##bits##_fetch_sub(volatile uint##bits##_t* p, uint##bits##_t v, int) {                            \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                                           \
  }                                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t* p, uint##bits##_t* e, uint##bits##_t v, int, int) { \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                      \
  }                                                                                                                              \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile uint##bits##_t* p, uint##bits##_t* e, uint##bits##_t v, int, int) {   \
    return __atomic_compare_exchange_n(p, e, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                       \
  }
TESSERA_ATOMICS(8)
TESSERA_ATOMICS(16)
TESSERA_ATOMICS(32)
TESSERA_ATOMICS(64)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"
