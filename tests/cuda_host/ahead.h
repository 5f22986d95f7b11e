// What a thread has begun and goes on by itself: copies into shared memory, and products that read it.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <vector>

namespace tessera::emulated {

class Ahead {
 public:
  void clear();

  void copy(void* to, const void* from, const void* place, bool at_once);  // `place`: of the instruction that begins it
  void close_copies() { closed_.push_back(copies_.size()); }
  void wait_for_copies(size_t left);
  bool copying() const { return !copies_.empty(); }

  void open_products() { opened_ = true; }
  void begin_product(const Product& product, const Place& where);
  void close_products() { closed_products_ = products_.size(); }
  void wait_for_products();
  bool multiplying() const { return !products_.empty(); }

 private:
  struct Copy {
    void* to;
    const void* from;
    const void* place;
    bool done;
  };
  struct PendingProduct {
    Product product;
    std::array<float, 64> sums;  // d when it began
  };
  static void carry_out(Copy& copy);

  std::vector<Copy> copies_{};    // in order
  std::vector<size_t> closed_{};  // of each group: copies up to its end
  std::vector<PendingProduct> products_{};
  size_t closed_products_ = 0;  // those that are in a group
  bool opened_ = false;         // to products
};

}  // namespace tessera::emulated
