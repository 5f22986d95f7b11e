#include "tests/cuda_host/ahead.h"

#include <algorithm>
#include <cstring>

#include "tests/cuda_host/access.h"
#include "tests/cuda_host/machine.h"

namespace tessera::emulated {

namespace {

void tell(const void* p, AccessKind kind, const void* place) {
  if (!access_checker.instrumented || p == nullptr) return;
  access_checker.in_kernel = true;
  access_checker.access(p, 16, kind, place);
  access_checker.in_kernel = false;
}

}  // namespace

void Ahead::clear() {
  copies_.clear();
  closed_.clear();
  products_.clear();
  closed_products_ = 0;
  opened_ = false;
}

void Ahead::carry_out(Copy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
  copy.done = true;
}

void Ahead::copy(void* to, const void* from, const void* place, bool at_once) {
  tell(from, AccessKind::kRead, place);
  tell(to, AccessKind::kCopyBegins, place);
  copies_.push_back({to, from, place, false});
  if (at_once) carry_out(copies_.back());
}

void Ahead::wait_for_copies(size_t left) {
  if (closed_.size() <= left) return;
  const size_t groups = closed_.size() - left;
  const size_t done = closed_[groups - 1];
  for (size_t i = 0; i < done; ++i) {
    Copy& copy = copies_[i];
    if (!copy.done) carry_out(copy);
    tell(copy.to, AccessKind::kCopyIsThere, copy.place);
  }
  copies_.erase(copies_.begin(), copies_.begin() + std::ptrdiff_t(done));
  closed_.erase(closed_.begin(), closed_.begin() + std::ptrdiff_t(groups));
  for (size_t& end : closed_) end -= done;
}

void Ahead::begin_product(const Product& product, const Place& where) {
  if (!opened_) fail("a product begins without open_products() after the wait for those before", where);
  PendingProduct pending{product, {}};
  if (product.numbers > pending.sums.size()) fail("a product of more columns than the emulation knows", where);
  std::copy_n(product.d, product.numbers, pending.sums.begin());
  if (access_checker.instrumented) product.read(product.a, product.b);
  products_.push_back(pending);
}

void Ahead::wait_for_products() {
  opened_ = false;
  for (size_t i = 0; i < closed_products_; ++i) {  // all before one is added
    const auto& [product, sums] = products_[i];
    if (std::memcmp(product.d, sums.data(), product.numbers * sizeof(float)) != 0) {
      report("sums were written while a product that adds to them goes on");
      abandon_launch();
    }
  }
  for (size_t i = 0; i < closed_products_; ++i) {
    const Product& product = products_[i].product;
    if (access_checker.instrumented) product.read(product.a, product.b);
    product.multiply(product.d, product.a, product.b);
  }
  products_.erase(products_.begin(), products_.begin() + std::ptrdiff_t(closed_products_));
  closed_products_ = 0;
}

}  // namespace tessera::emulated
