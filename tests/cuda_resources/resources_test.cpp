// What every compiled kernel needs of a multiprocessor, for each architecture: no spills but the listed ones, launch bounds
// everywhere, and the table of docs/performance.md:
//   build/release/bin/test_cuda_resources --test-case='compiled kernels'
#include "tests/cuda_resources/resources.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/cuda_resources/expected.h"

namespace fs = std::filesystem;

namespace tessera::testing {
namespace {

std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// All instances of a kernel template for one architecture: one row.
struct Row {
  int instances = 0;
  int least_registers = 1 << 20, registers = 0, shared = 0, stack = 0, spilled = 0, threads = 0;
  bool dynamic = false;
  int warps = 1 << 20;  // of the instance that fits worst
};

using Rows = std::map<std::pair<std::string, std::string>, Row>;  // (kernel, architecture)

std::string table(const Rows& rows) {
  std::string text = fmt::format("| {:28} | {:6} | {:>3} | {:>9} | {:>6} | {:>5} | {:>6} | {:>7} | {:>9} |\n", "kernel", "arch",
                                 "n", "registers", "shared", "stack", "spills", "threads", "occupancy");
  text += fmt::format("|{:-<30}|{:-<8}|{:->4}:|{:->10}:|{:->7}:|{:->6}:|{:->7}:|{:->8}:|{:->10}:|\n", "", "", "", "", "", "", "",
                      "", "");
  for (const auto& [key, r] : rows) {
    const int most = multiprocessor(key.second).warps;
    const bool unknown_shared = r.dynamic && !kDynamicShared.contains(key.first);
    const std::string occupancy = most == 0 ? "?" : fmt::format("{} %{}", 100 * r.warps / most, unknown_shared ? "*" : "");
    const std::string registers =
        r.least_registers == r.registers ? fmt::format("{}", r.registers) : fmt::format("{}-{}", r.least_registers, r.registers);
    text += fmt::format("| {:28} | {:6} | {:3} | {:>9} | {:6} | {:5} | {:6} | {:7} | {:>9} |\n", key.first, key.second, r.instances,
                        registers, r.shared, r.stack, r.spilled, r.threads, occupancy);
  }
  return text;
}

// Of the object files that a file lists.
Rows rows_of(const char* list) {
  Rows rows;
  std::ifstream objects(list);
  int files = 0;
  for (std::string object; std::getline(objects, object);) {
    if (object.find(".cu.") == object.npos) continue;
    ++files;
    const std::string file = fs::path(object).stem();
    REQUIRE_MESSAGE(fs::exists(object + ".ptxas"), file, ": no record of what ptxas said; build it anew");
    const auto bounds = parse_bounds(read_all(object));
    for (KernelUse& k : parse_ptxas(read_all(object + ".ptxas"))) {
      const std::string name = kernel_name(k.symbol);
      const auto it = bounds.find(k.symbol);
      REQUIRE_MESSAGE(it != bounds.end(), file, ": ", name, " is not in the PTX of the object file");
      k.max_threads = it->second.max_threads;
      k.dynamic = it->second.dynamic;
      CHECK_MESSAGE((k.spilled == 0 || kMaySpill.contains(name)), file, ": ", k.symbol, " spills ", k.spilled, " bytes on ", k.arch,
                    " (", k.registers, " registers); tests/cuda_resources/expected.h lists those that may");
      CHECK_MESSAGE(k.max_threads > 0, file, ": ", name, " has no __launch_bounds__");
      const auto dynamic = kDynamicShared.find(name);
      const int warps = resident_warps(k, dynamic == kDynamicShared.end() ? 0 : dynamic->second);
      CHECK_MESSAGE((warps > 0 || multiprocessor(k.arch).warps == 0), file, ": not one block of ", name, " fits on ", k.arch);
      Row& r = rows[{name, k.arch}];
      ++r.instances;
      r.least_registers = std::min(r.least_registers, k.registers);
      r.registers = std::max(r.registers, k.registers);
      r.shared = std::max(r.shared, k.shared);
      r.stack = std::max(r.stack, k.stack);
      r.spilled = std::max(r.spilled, k.spilled);
      r.threads = std::max(r.threads, k.max_threads);
      r.dynamic = r.dynamic || k.dynamic;
      r.warps = std::min(r.warps, warps);
    }
  }
  CHECK(files > 0);
  CHECK(!rows.empty());
  return rows;
}

TEST_CASE("compiled kernels") {
  if (std::string_view(TESSERA_CUDA_OBJECTS).empty()) {
    MESSAGE("skipped: no nvcc");
    return;
  }
  const Rows rows = rows_of(TESSERA_CUDA_OBJECTS);
  fmt::print(
      "{}\nThe ladders of bench/kernels/cuda:\n\n{}{}", table(rows), table(rows_of(CUDA_RUNGS_OBJECTS)),
      "\nn: instances, the columns give the worst of them. Shared memory is static, bytes of a block. Occupancy: resident warps "
      "of\n"
      "those that a multiprocessor can hold, by registers, shared memory and launch bounds (*: without dynamic shared memory).\n");
  for (const auto& [name, reason] : kMaySpill) {
    bool spills = false;
    for (const auto& [key, r] : rows) spills = spills || (key.first == name && r.spilled > 0);
    CHECK_MESSAGE(spills, name, " is listed as spilling (", reason, ") and does not");
  }
}

const char* const kSaid = R"(ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7tessera4cuda41_GLOBAL__N__c5d83f2d_9_reduce_cu_3ff3652111topk_kernelIfEEvPT_' for 'sm_80'
ptxas info    : Function properties for _ZN7tessera4cuda41_GLOBAL__N__c5d83f2d_9_reduce_cu_3ff3652111topk_kernelIfEEvPT_
    8 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 584 bytes cmem[0]
ptxas info    : Compile time = 111.759 ms
ptxas info    : Compiling entry function 'plain' for 'sm_90'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers
)";

TEST_CASE("what ptxas says is understood") {
  const auto all = parse_ptxas(kSaid);
  REQUIRE(all.size() == 2);
  CHECK(kernel_name(all[0].symbol) == "topk_kernel");
  CHECK(all[0].arch == "sm_80");
  CHECK(all[0].registers == 255);
  CHECK(all[0].shared == 1024);
  CHECK(all[0].stack == 8);
  CHECK(all[0].spilled == 36);
  CHECK(kernel_name(all[1].symbol) == "plain");
  CHECK(all[1].registers == 30);
  CHECK(all[1].shared == 0);
  CHECK(all[1].spilled == 0);
}

TEST_CASE("launch bounds are found between other bytes") {
  const std::string object = std::string("\x7f\0ELF", 5) +
                             ".visible .entry first(\n.param .u64 a\n)\n.maxntid 16, 16, 1\n.minnctapersm 2\n{\nmov %r1, "
                             "tessera_dynamic_shared;\nret;\n}\n\n.visible .entry second(\n)\n{\nret;\n}\n" +
                             std::string(8, '\0');
  const auto all = parse_bounds(object);
  REQUIRE(all.size() == 2);
  CHECK(all.at("first").max_threads == 256);
  CHECK(all.at("first").dynamic);
  CHECK(all.at("second").max_threads == 0);
  CHECK(!all.at("second").dynamic);
}

// Figures that can be worked out by hand, and are those of NVIDIA's calculator.
TEST_CASE("resident warps are those worked out by hand from registers, threads and shared memory") {
  auto warps = [](const char* arch, int registers, int threads, int shared, int dynamic = 0) {
    return resident_warps({.symbol = {}, .arch = arch, .registers = registers, .shared = shared, .max_threads = threads}, dynamic);
  };
  CHECK(warps("sm_90", 32, 256, 0) == 64);             // all
  CHECK(warps("sm_90", 33, 256, 0) == 48);             // 40 registers a thread are given: 51 warps, 6 blocks
  CHECK(warps("sm_90a", 128, 256, 0) == 16);           // 16 warps by registers
  CHECK(warps("sm_80", 32, 256, 47 << 10) == 24);      // 164 KB / 48 KB: 3 blocks
  CHECK(warps("sm_90", 32, 256, 0, 113 << 10) == 16);  // 228 KB / 114 KB: 2 blocks
  CHECK(warps("sm_90", 32, 256, 0, 114 << 10) == 8);
  CHECK(warps("sm_90", 32, 32, 0) == 32);     // 32 blocks are the most
  CHECK(warps("sm_86", 32, 1024, 0) == 32);   // 48 warps hold one block of 32
  CHECK(warps("sm_90", 255, 1024, 0) == 0);   // does not fit
  CHECK(warps("sm_12345", 32, 256, 0) == 0);  // nothing known
}

}  // namespace
}  // namespace tessera::testing
