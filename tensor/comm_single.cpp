#include <cstring>

#include "tensor/comm.h"

namespace tessera {

namespace {

class Done final : public PendingReduce {
 public:
  bool test() override { return true; }
  void wait() override {}
};

class SingleProcess final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  std::unique_ptr<PendingReduce> start_all_reduce(const Tensor&, Reduce, std::string_view) override {
    return std::make_unique<Done>();
  }
  void all_gather(const void* mine, int64_t bytes, void* all, std::string_view) override { std::memcpy(all, mine, size_t(bytes)); }
  std::vector<std::string> gather(std::string_view mine, int, std::string_view) override { return {std::string(mine)}; }
  void broadcast(void*, int64_t, int, std::string_view) override {}
  void barrier(std::string_view) override {}
};

}  // namespace

Communicator& single_process() {
  static SingleProcess one;
  return one;
}

void Communicator::broadcast(std::string& text, int root, std::string_view what) {
  int64_t bytes = int64_t(text.size());
  broadcast(bytes, root, what);
  text.resize(size_t(bytes));
  if (bytes > 0) broadcast(text.data(), bytes, root, what);
}

void Communicator::broadcast_tensor(const Tensor& tensor, int root, std::string_view what) {
  TESSERA_CHECK(tensor.is_dense(), "broadcast of {}: {} is not dense", what, describe(tensor));
  if (alone() || tensor.numel() == 0) return;
  const int64_t bytes = tensor.numel() * int64_t(size_of(tensor.dtype()));
  const Tensor host = tensor.to(Device::cpu());  // itself when it is there
  broadcast(host.raw(), bytes, root, what);
  if (rank() != root) {
    if (tensor.device() != Device::cpu()) tensor.copy_from(host);
    tensor.bump_version();
  }
}

Tensor Communicator::all_gather(const Tensor& mine, std::string_view what) {
  TESSERA_CHECK(mine.is_dense(), "all_gather of {}: {} is not dense", what, describe(mine));
  Shape shape{size()};
  for (const int64_t n : mine.shape()) shape.push_back(n);
  const Tensor all = Tensor::empty(shape, mine.dtype(), mine.device());
  all_gather_tensor(mine, all, what);
  return all;
}

void Communicator::all_gather_tensor(const Tensor& mine, const Tensor& all, std::string_view what) {
  const Tensor host = mine.to(Device::cpu());  // itself when it is there
  const bool here = all.device() == Device::cpu();
  const Tensor parts = here ? all : Tensor::empty(all.shape(), all.dtype());
  all_gather(host.raw(), mine.numel() * int64_t(size_of(mine.dtype())), parts.raw(), what);
  if (!here) all.copy_from(parts);
}

}  // namespace tessera
