// Entry of every test program: installs the CPU backends, then hands over to doctest.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tensor/base/check.h"
#include "tensor/cpu/install.h"

int main(int argc, char** argv) {
  try {
    tessera::install_cpu_backends();
  } catch (const tessera::Error& e) {  // a backend that this CPU lacks: ctest knows the message and skips the test
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
  return doctest::Context(argc, argv).run();
}
