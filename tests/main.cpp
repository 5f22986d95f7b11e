// Entry of every test program: installs the CPU backends, then hands over to doctest.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tensor/cpu/install.h"

int main(int argc, char** argv) {
  tessera::install_cpu_backends();
  return doctest::Context(argc, argv).run();
}
