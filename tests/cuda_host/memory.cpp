// Memory of the emulated GPU: addresses that fault when they are used wrongly, also by the host where that is forbidden.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "tests/cuda_host/access.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/machine.h"

namespace tessera::emulated {

namespace {

constexpr size_t kPage = 4096;
constexpr uint8_t kCanary = 0xA5;

struct Memory {
  std::byte* begin = nullptr;
  std::byte* top = nullptr;
  std::map<void*, Buffer> buffers;  // alive, by address
  bool host_access = true;
  std::vector<Buffer> opened;  // without host access: those that the running kernel or copy has used
  uint64_t changes = 0;        // of `buffers`
};
Memory& memory() {
  static Memory m;
  return m;
}

std::byte* page_of(std::byte* p) { return reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(p) / kPage * kPage); }
size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void protect(const Buffer& b, int access) {
  std::byte* const from = page_of(b.begin);
  mprotect(from, whole_pages(size_t(b.begin + b.bytes - from)), access);
}

// Without host access: lets the device use the buffer around `p`. False: there is none, or it is open.
bool open_buffer(const void* p) {
  Memory& m = memory();
  const auto* const at = static_cast<const std::byte*>(p);
  auto it = m.buffers.upper_bound(const_cast<void*>(p));
  if (m.host_access || it == m.buffers.begin()) return false;
  const Buffer b = (--it)->second;
  for (const Buffer& o : m.opened) {
    if (o.begin == b.begin) return false;
  }
  if (at >= b.begin + b.bytes) return false;
  protect(b, PROT_READ | PROT_WRITE);
  m.opened.push_back(b);
  return true;
}

}  // namespace

void allow_host_access(bool allow) {
  Memory& m = memory();
  m.host_access = allow;
  m.opened.clear();
  for (const auto& [p, b] : m.buffers) protect(b, allow ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void close_buffers() {
  for (const Buffer& b : memory().opened) protect(b, PROT_NONE);
  memory().opened.clear();
}

void copy(void* to, const void* from, size_t bytes) {
  open_buffer(to);
  open_buffer(from);
  std::memcpy(to, from, bytes);
  close_buffers();
}

void set(void* p, int value, size_t bytes) {
  open_buffer(p);
  std::memset(p, value, bytes);
  close_buffers();
}

bool is_device_address(const void* p) { return size_t(static_cast<const std::byte*>(p) - memory().begin) < kDeviceBytes; }

Buffer* buffer_before(const void* p) {
  static Buffer* last = nullptr;  // most accesses go where the one before went
  static uint64_t change = 0;
  Memory& m = memory();
  const auto* const b = static_cast<const std::byte*>(p);
  if (last != nullptr && change == m.changes && b >= last->begin && b < last->begin + last->bytes) return last;
  auto it = m.buffers.upper_bound(const_cast<void*>(p));
  change = m.changes;
  last = it == m.buffers.begin() ? nullptr : &std::prev(it)->second;
  return last;
}

int live_buffers() { return int(memory().buffers.size()); }

namespace {
void on_fault(int signal_number, siginfo_t* info, void*) {
  auto* const p = static_cast<std::byte*>(info->si_addr);
  if (!inside_kernel()) {
    std::signal(signal_number, SIG_DFL);
    return;  // the instruction faults again, now for the system
  }
  if (open_buffer(p)) return;  // the instruction is tried again
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal_number);
  sigprocmask(SIG_UNBLOCK, &mask, nullptr);  // the handler is left by a switch of fibers, not by returning
  const Memory& m = memory();
  const bool ours = p >= m.begin && p < m.begin + kDeviceBytes;
  stop_at_fault(p, ours ? "device memory outside any buffer is accessed at" : "bad access (null, wild or misaligned) at");
}
}  // namespace

FaultHandler::FaultHandler() {
  static std::byte alternate[64 << 10];  // the faulting stack may be the full one
  stack_t stack{};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  sigaltstack(&stack, &stack_);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &segv_);
  sigaction(SIGBUS, &action, &bus_);
}

FaultHandler::~FaultHandler() {
  sigaction(SIGSEGV, &segv_, nullptr);
  sigaction(SIGBUS, &bus_, nullptr);
  sigaltstack(&stack_, nullptr);
}

}  // namespace tessera::emulated

using namespace tessera::emulated;

cudaError_t cudaMemGetInfo(size_t* left, size_t* total) {
  TESSERA_MAY_FAIL();
  const Memory& m = memory();
  *total = kDeviceBytes;
  *left = kDeviceBytes - size_t(m.top - m.begin);
  return cudaSuccess;
}

// A buffer ends within 255 bytes of an unmapped page, and what lies between is checked when it is freed; addresses are never given
// out twice, so an access after that faults.
cudaError_t cudaMalloc(void** p, size_t bytes) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  Memory& m = memory();
  if (m.begin == nullptr) {
    void* const all = mmap(nullptr, kDeviceBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) std::abort();
    m.begin = m.top = static_cast<std::byte*>(all);
  }
  const size_t aligned = (bytes + 255) / 256 * 256;
  const size_t mapped = whole_pages(aligned);
  if (mapped + kPage > size_t(m.begin + kDeviceBytes - m.top)) return remember(cudaErrorMemoryAllocation);
  if (mprotect(m.top, mapped, PROT_READ | PROT_WRITE) != 0) return remember(cudaErrorMemoryAllocation);
  std::byte* const begin = m.top + mapped - aligned;
  std::memset(m.top, 0xFF, mapped);
  std::memset(begin + bytes, kCanary, aligned - bytes);
  m.top += mapped + kPage;
  m.buffers[begin] = {begin, bytes};
  if (!m.host_access) protect({begin, bytes}, PROT_NONE);
  m.buffers[begin] = {begin, bytes, nullptr};
  ++m.changes;
  *p = bytes == 0 ? nullptr : begin;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  if (p == nullptr) return cudaSuccess;
  Memory& m = memory();
  const auto it = m.buffers.find(p);
  if (it == m.buffers.end()) return remember(cudaErrorInvalidValue);
  const Buffer b = it->second;
  protect(b, PROT_READ | PROT_WRITE);
  std::byte* const end = b.begin + (b.bytes + 255) / 256 * 256;
  for (const std::byte* at = b.begin + b.bytes; at < end; ++at) {
    if (*at == std::byte{kCanary}) continue;
    report("a device buffer of %zu bytes was written past its end", b.bytes);
    break;
  }
  std::byte* const from = page_of(b.begin);
  mprotect(from, size_t(end - from), PROT_NONE);
  madvise(from, size_t(end - from), MADV_DONTNEED);
  std::free(b.shadow);
  m.buffers.erase(it);
  ++m.changes;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** p, size_t bytes) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  *p = std::aligned_alloc(kPage, whole_pages(bytes));
  return *p != nullptr ? cudaSuccess : remember(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* p) {
  TESSERA_MAY_FAIL();
  if (const cudaError_t error = forbidden_while_capturing(); error != cudaSuccess) return error;
  std::free(p);
  return cudaSuccess;
}
