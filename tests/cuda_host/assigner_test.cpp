// The assigner's kernels on what the original chose, and on ties: the same choices as on the CPU.
#include "tests/cuda_host/emulator.h"
#include "tests/train/assigner_cases.h"

namespace tessera::testing {
namespace {

void check_no_reports() {
  const auto reports = emulated::take_reports();
  CHECK_MESSAGE(reports.empty(), reports.size(), " reports, the first: ", reports.empty() ? "" : reports[0]);
}

TEST_CASE("assignment equals the original's in 200 random cases, emulated") {
  check_golden_assignment(Device::cuda());
  check_no_reports();
}

TEST_CASE("assignment: ties, metrics of 0 and the best of many, emulated") {
  check_assignment_of_ties(Device::cuda());
  check_assignment_of_many(Device::cuda());
  check_no_reports();
}

}  // namespace
}  // namespace tessera::testing
