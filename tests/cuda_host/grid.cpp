// Runs a grid on the CPU: blocks one after another, the threads of a block as fibers that change over only where CUDA lets threads
// meet. Between those points a thread runs undisturbed, so what the emulation can show is wrong order, not torn accesses.
//
// Note [Order of threads]: a fair random draw at each meeting keeps the warps of a block roughly in step, and a kernel that needs
// that passes. So each interval between barriers is run in one of three ways: by fair draws, by always continuing the newest ready
// thread (one warp runs far ahead of the others), or by that with a draw now and then.
#include <sys/mman.h>

#include <algorithm>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/cuda_host/access.h"
#include "tests/cuda_host/ahead.h"
#include "tests/cuda_host/emulator.h"
#include "tests/cuda_host/fiber.h"
#include "tests/cuda_host/machine.h"
#include "tests/cuda_host/shared_memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace tessera::emulated {

unsigned lane_of_warp;

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kPage = 4096;

enum class State : uint8_t { kFresh, kReady, kAtBarrier, kAtGroup, kAtWarp, kDone };
constexpr unsigned kGroup = 128;  // threads of a warpgroup

struct Thread {
  uint3 index{};
  unsigned linear = 0;
  State state = State::kFresh;
  int stack = -1;
  Fiber fiber{};
  Place where;  // of the meeting it waits at
  Ahead ahead{};
  bool waited = false;         // for the kernel before
};

// One warp operation that lanes are arriving at.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  WarpAction action = nullptr;
  Place where;
  void* lanes[32];
};

class Machine {
 public:
  cudaError_t run(const cudaLaunchConfig_t& config, void (*body)(void*), void* argument, size_t argument_bytes);
  int barrier(int predicate, const Place& where);
  void group_barrier(const Place& where);
  void meet(unsigned mask, void* mine, WarpAction action, const Place& where);
  SharedMemory& shared() { return shared_; }
  void forget_reports() { reports_before_ = 0; }
  bool busy() const { return current_ != nullptr; }
  void wait_for_kernel_before();
  Ahead& ahead() { return current_->ahead; }
  bool copies_at_once() const { return copies_at_once_; }
  void add_report(const std::string& text);
  [[noreturn]] void abandon();
  bool on_stack(const void* p) const { return p >= stacks_ && p < stacks_ + kStackBytes * kMaxThreads; }

  uint64_t seed = 1;
  uint64_t launch = 0;
  bool printing = true;
  std::vector<std::string> reports;

 private:
  static void fiber_entry();
  void prepare();
  void start_block(unsigned index);
  void new_order();
  Thread* next();
  void deadlock();
  void become(Thread* t);
  void go_on(Fiber* save, Thread* t);
  void wait();
  void make_ready(Thread& t);
  void open_barrier();
  unsigned draw(unsigned n);  // 0 .. n-1

  std::byte* top_of(int stack) const {
    // Tops at different distances from the page, or all fibers would share a few lines of the cache.
    return stacks_ + size_t(stack + 1) * kStackBytes - size_t(stack * 5 % 61) * 64 - 64;
  }

  std::byte* stacks_ = nullptr;
  std::vector<int> free_stacks_;
  SharedMemory shared_;

  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  unsigned threads_n_ = 0, done_ = 0, at_barrier_ = 0;
  unsigned at_group_[kMaxThreads / kGroup] = {};
  bool early_ = false, copies_at_once_ = false;
  size_t waited_ = 0;  // threads that have, for the kernel before
  int votes_ = 0, votes_seen_ = 0;
  Thread threads_[kMaxThreads];
  std::vector<Meeting> meetings_[kMaxThreads / 32];
  uint16_t ready_[kMaxThreads];  // ring
  unsigned head_ = 0, count_ = 0;
  Thread* current_ = nullptr;
  Fiber main_{};
  bool abandoned_ = false;
  size_t reports_before_ = 0;  // this launch
  uint64_t random_ = 0;
  enum class Mode { kFair, kMixed, kNewest } mode_ = Mode::kFair;
};

Machine machine;

unsigned Machine::draw(unsigned n) {  // xorshift
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return unsigned((random_ >> 32) * n >> 32);
}

void Machine::add_report(const std::string& text) {
  constexpr size_t kEnough = 16;  // of one launch: a mistake of all threads would fill the log
  if (reports.size() >= reports_before_ + kEnough) return;
  std::string all = text;
  if (current_ != nullptr) {
    const uint3 b = blockIdx;
    const uint3 t = current_->index;
    all += " [block " + std::to_string(b.x) + "," + std::to_string(b.y) + "," + std::to_string(b.z) + " thread " +
           std::to_string(t.x) + "," + std::to_string(t.y) + "," + std::to_string(t.z) + "]";
  }
  reports.push_back(all);
  if (printing && reports.size() == reports_before_ + 1) {
    std::fprintf(stderr, "emulated GPU, seed %llu: %s\n", static_cast<unsigned long long>(seed), all.c_str());
  }
}

// Ends the launch from inside a fiber; the fibers are left as they are.
void Machine::abandon() {
  access_checker.in_kernel = false;
  abandoned_ = true;
  Fiber left;
  switch_fiber(&left, main_);
  std::abort();
}

// ---- order
// -----------------------------------------------------------------------------------------------------------------------

void Machine::make_ready(Thread& t) {
  t.state = State::kReady;
  ready_[(head_ + count_++) % kMaxThreads] = uint16_t(t.linear);
}

// At the start of a block and after each barrier: how this interval is run, and who comes first.
void Machine::new_order() {
  if (seed == 0) return;
  mode_ = Mode(draw(3));
  if (mode_ == Mode::kFair) return;
  std::vector<uint16_t> order(count_);
  const unsigned first = draw(count_);
  const bool backwards = draw(2) != 0;
  for (unsigned i = 0; i < count_; ++i)
    order[((backwards ? count_ - 1 - i : i) + first) % count_] = ready_[(head_ + i) % kMaxThreads];
  for (unsigned i = 0; i < count_; ++i) ready_[(head_ + i) % kMaxThreads] = order[i];
}

void Machine::open_barrier() {
  for (unsigned i = 0; i < threads_n_; ++i) {
    if (threads_[i].state == State::kAtBarrier) make_ready(threads_[i]);
  }
  access_checker.barrier();
  votes_seen_ = votes_;
  votes_ = 0;
  at_barrier_ = 0;
  new_order();
}

// Nobody can go on, and not all are done: names the first reason.
void Machine::deadlock() {
  const Thread* at_warp = nullptr;
  const Thread* at_group = nullptr;
  const Thread* at_barrier = nullptr;
  const Thread* elsewhere = nullptr;
  for (unsigned i = 0; i < threads_n_; ++i) {
    const Thread& t = threads_[i];
    if (t.state == State::kAtWarp && at_warp == nullptr) at_warp = &t;
    if (t.state == State::kAtGroup && at_group == nullptr) at_group = &t;
    if (t.state != State::kAtBarrier) continue;
    if (at_barrier == nullptr) {
      at_barrier = &t;
    } else if (t.where.line() != at_barrier->where.line() || std::strcmp(t.where.file_name(), at_barrier->where.file_name()) != 0) {
      elsewhere = &t;
    }
  }
  if (at_warp != nullptr) {
    report("the warp operation at %s:%u never completes: thread %u waits for lanes that left or wait elsewhere",
           at_warp->where.file_name(), at_warp->where.line(), at_warp->linear);
  } else if (at_group != nullptr) {
    report("the barrier of a warpgroup at %s:%u never opens: thread %u waits for threads that left or wait elsewhere",
           at_group->where.file_name(), at_group->where.line(), at_group->linear);
  } else if (done_ > 0) {
    report("divergent barrier: %u threads wait at %s:%u and %u have left the kernel", at_barrier_, at_barrier->where.file_name(),
           at_barrier->where.line(), done_);
  } else if (elsewhere != nullptr) {
    report("divergent barrier: thread %u waits at %s:%u, thread %u at line %u", at_barrier->linear, at_barrier->where.file_name(),
           at_barrier->where.line(), elsewhere->linear, elsewhere->where.line());
  } else {
    return;
  }
  abandon();
}

// The thread that runs next; null: the block is done.
Thread* Machine::next() {
  if (count_ == 0) {
    if (done_ == threads_n_) return nullptr;
    deadlock();
    open_barrier();
  }
  if (seed != 0) {
    if (mode_ == Mode::kNewest || (mode_ == Mode::kMixed && draw(16) != 0)) {
      return &threads_[ready_[(head_ + --count_) % kMaxThreads]];
    }
    std::swap(ready_[head_], ready_[(head_ + draw(count_)) % kMaxThreads]);
  }
  Thread* t = &threads_[ready_[head_]];
  head_ = (head_ + 1) % kMaxThreads;
  --count_;
  return t;
}

// ---- fibers
// ----------------------------------------------------------------------------------------------------------------------

void Machine::become(Thread* t) {
  current_ = t;
  if (t == nullptr) return;
  threadIdx = t->index;
  lane_of_warp = t->linear % 32;
  access_checker.set_thread(t->linear);
  access_checker.ahead = early_ && !t->waited;
}

void Machine::go_on(Fiber* save, Thread* t) {
  become(t);
  if (t == nullptr) return switch_fiber(save, main_);
  if (t->stack < 0) {
    t->stack = free_stacks_.back();
    free_stacks_.pop_back();
    t->fiber = make_fiber(top_of(t->stack), kStackBytes / 2, fiber_entry);
  }
  switch_fiber(save, t->fiber);
}

void Machine::wait() {
  Thread* const me = current_;
  Thread* const t = next();
  if (t == me) return;
  go_on(&me->fiber, t);
}

// A fiber runs one thread after another as long as the next one is fresh: kernels without meetings never switch.
void Machine::fiber_entry() {
  Machine& m = machine;
  for (;;) {
    access_checker.in_kernel = true;
    m.body_(m.argument_);
    access_checker.in_kernel = false;
    Thread* const me = m.current_;
    if (me->ahead.copying()) report("a thread leaves the kernel without having waited for its copies");
    if (me->ahead.multiplying()) report("a thread leaves the kernel without having waited for its products");
    me->state = State::kDone;
    ++m.done_;
    Thread* const t = m.next();
    if (t != nullptr && t->stack < 0) {
      t->stack = me->stack;
      m.become(t);
      continue;
    }
    m.free_stacks_.push_back(me->stack);
    Fiber left;
    m.go_on(&left, t);
  }
}

int Machine::barrier(int predicate, const Place& where) {
  Thread& me = *current_;
  me.state = State::kAtBarrier;
  me.where = where;
  ++at_barrier_;
  votes_ += predicate;
  wait();
  return votes_seen_;
}

void Machine::group_barrier(const Place& where) {
  Thread& me = *current_;
  const unsigned group = me.linear / kGroup;
  me.where = where;
  if (++at_group_[group] < kGroup) {
    me.state = State::kAtGroup;
    return wait();
  }
  at_group_[group] = 0;
  access_checker.group_barrier(group);
  for (unsigned i = group * kGroup; i < (group + 1) * kGroup; ++i) {
    if (threads_[i].state == State::kAtGroup) make_ready(threads_[i]);
  }
}

void Machine::meet(unsigned mask, void* mine, WarpAction action, const Place& where) {
  Thread& me = *current_;
  const unsigned lane = lane_of_warp;
  const unsigned warp = me.linear / 32;
  if (!(mask >> lane & 1)) {
    report("lane %u calls a warp operation with mask %08x, which leaves it out, at %s:%u", lane, mask, where.file_name(),
           where.line());
    abandon();
  }
  auto& list = meetings_[warp];
  size_t i = 0;
  while (i < list.size() && list[i].mask != mask) ++i;
  if (i == list.size()) list.push_back({mask, 0, action, where, {}});
  Meeting& m = list[i];
  if (m.where.line() != where.line() || std::strcmp(m.where.file_name(), where.file_name()) != 0) {
    report("lanes of a warp meet at different places: %s:%u and %s:%u", m.where.file_name(), m.where.line(), where.file_name(),
           where.line());
    abandon();
  }
  m.arrived |= 1u << lane;
  m.lanes[lane] = mine;
  if (m.arrived != mask) {
    me.state = State::kAtWarp;
    me.where = where;
    wait();
    return;
  }
  if (action != nullptr) {
    void* lanes[32];  // on the stack of a fiber, which the action may read
    std::copy(std::begin(m.lanes), std::end(m.lanes), lanes);
    access_checker.in_kernel = true;  // what it reads of shared memory for its lanes counts as read by this one
    action(lanes, mask);
    access_checker.in_kernel = false;
  } else {
    access_checker.warp_barrier(warp);  // only __syncwarp() orders memory
  }
  for (unsigned l = 0; l < 32; ++l) {
    if (mask >> l & 1 && l != lane) make_ready(threads_[warp * 32 + l]);
  }
  list.erase(list.begin() + std::ptrdiff_t(i));
}

void Machine::wait_for_kernel_before() {
  if (!current_->waited) ++waited_;
  current_->waited = true;
  access_checker.ahead = false;
}

// ---- launch
// ----------------------------------------------------------------------------------------------------------------------

void Machine::prepare() {
  if (stacks_ != nullptr) return;
  void* const p =
      mmap(nullptr, kStackBytes * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  stacks_ = static_cast<std::byte*>(p);
  for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(stacks_ + i * kStackBytes, kPage, PROT_NONE);
  access_checker.memory(shared_.arena(), SharedMemory::kArena, stacks_, kStackBytes * kMaxThreads);
}

void Machine::start_block(unsigned index) {
  const dim3 g = gridDim;
  blockIdx = {index % g.x, index / g.x % g.y, index / g.x / g.y};
  shared_.begin_block();
  for (unsigned i = 0; i < threads_n_; ++i) {
    threads_[i].state = State::kFresh;
    threads_[i].stack = -1;
    threads_[i].ahead.clear();
    threads_[i].waited = false;
    ready_[i] = uint16_t(i);
  }
  for (auto& list : meetings_) list.clear();
  access_checker.begin_block();
  head_ = done_ = at_barrier_ = 0;
  std::fill(std::begin(at_group_), std::end(at_group_), 0u);
  count_ = threads_n_;
  votes_ = votes_seen_ = 0;
  new_order();
}

cudaError_t Machine::run(const cudaLaunchConfig_t& config, void (*body)(void*), void* argument, size_t argument_bytes) {
  const dim3 g = config.gridDim;
  const dim3 b = config.blockDim;
  const size_t threads = size_t(b.x) * b.y * b.z;
  const size_t blocks = size_t(g.x) * g.y * g.z;
  if (threads == 0 || threads > kMaxThreads || b.z > 64 || blocks == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (config.dynamicSmemBytes > SharedMemory::kTotal) return cudaErrorInvalidValue;
  prepare();
  ++launch;
  gridDim = g;
  blockDim = b;
  body_ = body;
  argument_ = argument;
  threads_n_ = unsigned(threads);
  abandoned_ = false;
  early_ = config.numAttrs != 0;
  waited_ = 0;
  random_ = (seed + 1) * 0x9E3779B97F4A7C15u + launch * 0xD1342543DE82EF95u;
  draw(1);
  copies_at_once_ = draw(2) == 0;
  access_checker.begin_launch(argument, argument_bytes);
  shared_.begin_launch(config.dynamicSmemBytes);
  for (unsigned i = 0; i < threads_n_; ++i) {
    threads_[i].index = {i % b.x, i / b.x % b.y, i / b.x / b.y};
    threads_[i].linear = i;
  }
  std::vector<unsigned> order(blocks);
  for (size_t i = 0; i < blocks; ++i) order[i] = unsigned(i);
  for (size_t i = blocks; seed != 0 && i > 1; --i) std::swap(order[i - 1], order[draw(unsigned(i))]);
  reports_before_ = reports.size();
  const FaultHandler handler;
  for (size_t i = 0; i < blocks && !abandoned_; ++i) {
    free_stacks_.clear();
    for (unsigned k = kMaxThreads; k > 0; --k) free_stacks_.push_back(int(k) - 1);
    start_block(order[i]);
    go_on(&main_, next());
    shared_.check_guards();
  }
  current_ = nullptr;
  if (early_ && !abandoned_ && waited_ != threads * blocks) {
    report("of a kernel that was launched early %zu threads of %zu waited for the one before", waited_, threads * blocks);
  }
  shared_.check_limits();
  return reports.size() == reports_before_ ? cudaSuccess : cudaErrorLaunchFailure;
}

std::mutex launch_mutex;  // one grid at a time

bool counting_launches = false;
std::map<std::tuple<const void*, const void*, bool>, uint64_t> launch_counts;  // by kernel, owner and direction

}  // namespace

// ---- what kernels and the runtime call
// -------------------------------------------------------------------------------------------

// The emulator's own accesses are not checked. No guard object: abandon() leaves without unwinding.
int block_barrier(int predicate, const Place& where) {
  access_checker.in_kernel = false;
  const int votes = machine.barrier(predicate, where);
  access_checker.in_kernel = true;
  return votes;
}
void group_barrier(const Place& where) {
  access_checker.in_kernel = false;
  machine.group_barrier(where);
  access_checker.in_kernel = true;
}
void warp_meet(unsigned mask, void* mine, WarpAction action, const Place& where) {
  access_checker.in_kernel = false;
  machine.meet(mask, mine, action, where);
  access_checker.in_kernel = true;
}
void* shared_variable(SharedSlot& slot, size_t bytes, size_t alignment, const char* name) {
  access_checker.in_kernel = false;
  void* const p = machine.shared().variable(slot, bytes, alignment, name, machine.launch);
  access_checker.in_kernel = true;
  return p;
}
void* dynamic_shared() { return machine.shared().dynamic(); }

void wait_for_kernel_before() {
  access_checker.in_kernel = false;
  machine.wait_for_kernel_before();
  access_checker.in_kernel = true;
}

void memory_fence() { access_checker.fence(); }

void copy_ahead(void* to, const void* from) {
  access_checker.in_kernel = false;
  machine.ahead().copy(to, from, __builtin_return_address(0), machine.copies_at_once());
  access_checker.in_kernel = true;
}
void close_copies() {
  access_checker.in_kernel = false;
  machine.ahead().close_copies();
  access_checker.in_kernel = true;
}
void wait_for_copies(int left) {
  access_checker.in_kernel = false;
  machine.ahead().wait_for_copies(size_t(left));
  access_checker.in_kernel = true;
}

void open_products() {
  access_checker.in_kernel = false;
  machine.ahead().open_products();
  access_checker.in_kernel = true;
}
void begin_product(const Product& product, const Place& where) {
  access_checker.in_kernel = false;
  machine.ahead().begin_product(product, where);
  access_checker.in_kernel = true;
}
void close_products() {
  access_checker.in_kernel = false;
  machine.ahead().close_products();
  access_checker.in_kernel = true;
}
void wait_for_products() {
  access_checker.in_kernel = false;
  machine.ahead().wait_for_products();
  access_checker.in_kernel = true;
}
void publish_to_products() { access_checker.publish(); }
void touch_for_product(const void* p, size_t bytes) {
  access_checker.in_kernel = true;
  access_checker.access(p, bytes, AccessKind::kProduct, __builtin_return_address(0));
  access_checker.in_kernel = false;
}

void report(const char* format, ...) {
  const bool in_kernel = std::exchange(access_checker.in_kernel, false);
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  machine.add_report(text);
  access_checker.in_kernel = in_kernel;
}

void fail(const char* what, const Place& where) {
  report("%s at %s:%u", what, where.file_name(), where.line());
  machine.abandon();
}

void stop_at_fault(const void* address, const char* what) {
  report("%s %p", machine.on_stack(address) ? "a fiber's stack overflows at" : what, address);
  machine.abandon();
}

void abandon_launch() { machine.abandon(); }
bool inside_kernel() { return machine.busy(); }

void set_seed(uint64_t value) { machine.seed = value; }
uint64_t seed() { return machine.seed; }
uint64_t launches() { return machine.launch; }
void count_launches(bool on) {
  counting_launches = on;
  launch_counts.clear();
}
std::vector<LaunchCount> counted_launches() {
  std::vector<const void*> kernels;
  for (const auto& [key, launches] : launch_counts) kernels.push_back(std::get<0>(key));
  const std::vector<std::string> names = function_names(kernels);
  std::vector<LaunchCount> counts;
  for (const auto& [key, launches] : launch_counts) {
    counts.push_back({names[counts.size()], {std::get<1>(key), std::get<2>(key)}, launches});
  }
  return counts;
}
void print_reports(bool print) { machine.printing = print; }
std::vector<std::string> take_reports() {
  machine.forget_reports();
  return std::exchange(machine.reports, {});
}

cudaError_t run_grid(const void* kernel, const cudaLaunchConfig_t& config, void (*body)(void*), void* argument, size_t argument_bytes) {
  const std::lock_guard lock(launch_mutex);
  cudaError_t planned = cudaSuccess;
  if (fails_now("launch", &planned)) return planned;
  if (counting_launches) {
    const WorkScope scope = current_scope();
    ++launch_counts[{kernel, scope.owner, scope.backward}];
  }
  const cudaError_t result = machine.run(config, body, argument, argument_bytes);
  close_buffers();
  return result;
}

}  // namespace tessera::emulated
