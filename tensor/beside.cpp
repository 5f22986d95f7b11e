#include "tensor/beside.h"

namespace tessera {

namespace {
thread_local bool beside = false;
}

BesideGuard::BesideGuard() : previous_(beside) { beside = true; }
BesideGuard::~BesideGuard() { beside = previous_; }
bool BesideGuard::here() { return beside; }

void BesideMemory::begin() { allocator_.hold_back(); }

bool BesideMemory::end() {
  if (++calls_ < calls_of_group_) return false;
  allocator_.let_go(before_);
  before_ = allocator_.held_back();
  calls_ = 0;
  return true;
}

void BesideMemory::joined() {
  allocator_.let_go();
  calls_ = 0;
  before_ = 0;
}

}  // namespace tessera
