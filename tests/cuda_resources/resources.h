// Registers, memory and launch bounds of compiled kernels, and how many warps of each fit on a multiprocessor.
#pragma once

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::testing {

struct KernelUse {
  std::string symbol;
  std::string arch;  // sm_90
  int registers = 0;
  int shared = 0;  // static
  int stack = 0;
  int spilled = 0;       // bytes stored and loaded
  int max_threads = 0;   // of a block: launch bounds; 0: none given
  bool dynamic = false;  // uses dynamic shared memory
};

// What `ptxas -v` says.
inline std::vector<KernelUse> parse_ptxas(const std::string& text) {
  static const std::regex opening("Compiling entry function '([^']+)' for '([^']+)'");
  std::vector<KernelUse> all;
  auto number_before = [](const std::string& line, const char* what) {
    std::smatch found;
    return std::regex_search(line, found, std::regex(std::string("([0-9]+) ") + what)) ? std::stoi(found[1]) : 0;
  };
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    std::smatch found;
    if (std::regex_search(line, found, opening)) {
      all.push_back({.symbol = found[1], .arch = found[2]});
    } else if (!all.empty() && line.find("bytes stack frame") != std::string::npos) {
      // Functions that were not inlined have such a line too; theirs count for the kernel that is being compiled.
      all.back().stack = std::max(all.back().stack, number_before(line, "bytes stack frame"));
      all.back().spilled += number_before(line, "bytes spill stores") + number_before(line, "bytes spill loads");
    } else if (!all.empty() && line.find(": Used ") != std::string::npos) {
      all.back().registers = number_before(line, "registers");
      all.back().shared = number_before(line, "bytes smem");
    }
  }
  return all;
}

struct Bounds {
  int max_threads = 0;
  bool dynamic = false;
};

// Launch bounds by symbol, from the PTX that lies uncompressed in an object file.
inline std::map<std::string, Bounds> parse_bounds(std::string_view object) {
  std::map<std::string, Bounds> all;
  constexpr std::string_view kEntry = ".entry ";
  for (size_t at = object.find(kEntry); at != object.npos;) {
    const size_t name = at + kEntry.size();
    const size_t next = object.find(kEntry, name);
    const std::string_view text = object.substr(name, next == object.npos ? next : next - name);
    at = next;
    const size_t open = text.find('(');
    const size_t body = text.find("\n{");
    if (open == text.npos || body == text.npos) continue;
    Bounds b;
    constexpr std::string_view kThreads = ".maxntid ";
    if (const size_t p = text.substr(0, body).find(kThreads); p != text.npos) {
      const char* digits = text.data() + p + kThreads.size();
      char* after = nullptr;
      b.max_threads = 1;
      do {
        b.max_threads *= int(std::strtol(digits, &after, 10));
        digits = after + 1;
      } while (*after == ',');
    }
    const size_t end = std::min(text.find("\n}"), text.size());
    b.dynamic = text.substr(body, end - body).find("tessera_dynamic_shared") != text.npos;
    all[std::string(text.substr(0, open))] = b;
  }
  return all;
}

// "reduce_kernel" of its symbol.
inline std::string kernel_name(const std::string& symbol) {
  int status = 0;
  char* const text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : symbol;
  std::free(text);
  constexpr std::string_view kAnonymous = "(anonymous namespace)::";
  for (size_t p = name.find(kAnonymous); p != name.npos; p = name.find(kAnonymous)) name.erase(p, kAnonymous.size());
  name.resize(std::min(name.find_first_of("<("), name.size()));
  return name.substr(name.find_last_of(": ") + 1);  // npos + 1 is 0
}

// A multiprocessor of one compute capability: CUDA programming guide, "technical specifications per compute capability".
struct Multiprocessor {
  int warps, blocks, registers, shared;
};
inline Multiprocessor multiprocessor(const std::string& arch) {
  constexpr int kRegisters = 64 << 10;
  static const std::map<std::string, Multiprocessor> kKnown = {
      {"sm_75", {32, 16, kRegisters, 64 << 10}},   {"sm_80", {64, 32, kRegisters, 164 << 10}},
      {"sm_86", {48, 16, kRegisters, 100 << 10}},  {"sm_87", {48, 16, kRegisters, 164 << 10}},
      {"sm_89", {48, 24, kRegisters, 100 << 10}},  {"sm_90", {64, 32, kRegisters, 228 << 10}},
      {"sm_100", {64, 32, kRegisters, 228 << 10}}, {"sm_120", {48, 32, kRegisters, 100 << 10}},
  };
  const auto it = kKnown.find(arch.substr(0, arch.find_first_not_of("0123456789", 3)));  // sm_90a is an sm_90
  return it == kKnown.end() ? Multiprocessor{} : it->second;
}

// Warps that fit on a multiprocessor at once; 0: unknown architecture, or not one block fits.
inline int resident_warps(const KernelUse& k, int dynamic_shared) {
  const Multiprocessor m = multiprocessor(k.arch);
  if (m.warps == 0) return 0;
  auto up = [](int value, int to) { return (value + to - 1) / to * to; };
  const int warps = up(k.max_threads > 0 ? k.max_threads : 1024, 32) / 32;
  constexpr int kQuarters = 4;  // each has its own warps and registers
  const int per_warp = up(std::max(k.registers, 1) * 32, 256);
  const int by_registers = m.registers / kQuarters / per_warp * kQuarters / warps;
  constexpr int kSystem = 1 << 10;  // of every block's shared memory
  const int by_shared = m.shared / up(k.shared + dynamic_shared + kSystem, 128);
  return std::min({m.warps / warps, m.blocks, by_registers, by_shared}) * warps;
}

}  // namespace tessera::testing
