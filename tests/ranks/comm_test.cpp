// The calls of the communicator, with as many ranks as were started.
#include "tensor/comm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

using namespace tessera;

namespace {

// Number i of a rank; sums of these round.
float number(int rank, int64_t i) { return std::sin(float(i) * 0.37f + float(rank)) * std::pow(10.0f, float((i + rank) % 7) - 3); }

Tensor numbers(int rank, int64_t count) {
  Tensor t = Tensor::empty({count});
  for (int64_t i = 0; i < count; ++i) t.data<float>()[i] = number(rank, i);
  return t;
}

bool same_bits_everywhere(const Tensor& t) {
  std::vector<float> all(size_t(t.numel()) * size_t(world().size()));
  world().all_gather(t.raw(), t.numel() * 4, all.data(), "a result");
  for (int r = 0; r < world().size(); ++r) {
    if (std::memcmp(all.data() + r * t.numel(), t.raw(), size_t(t.numel()) * 4) != 0) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("ranks: this was started as more than one process") {
  REQUIRE(world().size() >= 2);
  CHECK(world().rank() == launched_rank());
  CHECK(world().local_size() == world().size());
  CHECK(world().leader() == (world().rank() == 0));
}

TEST_CASE("ranks: sums and means are right, and the same bits on all ranks and in every run") {
  Communicator& w = world();
  for (const int64_t count : {1, 7, 1000, 300000, 2000003}) {
    for (const Reduce op : {Reduce::kSum, Reduce::kMean}) {
      CAPTURE(count);
      const Tensor t = numbers(w.rank(), count), again = numbers(w.rank(), count);
      w.all_reduce(t, op, "numbers");
      w.all_reduce(again, op, "numbers");
      double worst = 0;
      for (int64_t i = 0; i < count; ++i) {
        double sum = 0, magnitude = 0;
        for (int r = 0; r < w.size(); ++r) sum += double(number(r, i)), magnitude += std::abs(double(number(r, i)));
        const double n = op == Reduce::kMean ? w.size() : 1;
        worst = std::max(worst, std::abs(double(t.data<float>()[i]) * n - sum) / magnitude);
      }
      CHECK(worst <= w.size() * 6e-8);
      CHECK(std::memcmp(t.raw(), again.raw(), size_t(count) * 4) == 0);
      CHECK(same_bits_everywhere(t));
    }
  }
}

TEST_CASE("ranks: several reductions in flight, waited for in another order, between other calls") {
  Communicator& w = world();
  std::vector<Tensor> tensors;
  std::vector<std::unique_ptr<PendingReduce>> pending;
  for (int64_t k = 0; k < 5; ++k) {
    tensors.push_back(Tensor::full({100000 + k}, double(w.rank() + k)));
    pending.push_back(w.start_all_reduce(tensors.back(), Reduce::kSum, "a bucket"));
    const std::vector<int> seen = w.all_gather(w.rank() * 10, "numbers");
    CHECK(seen.back() == (w.size() - 1) * 10);
  }
  for (size_t k = pending.size(); k-- > 0;) {
    pending[k]->wait();
    CHECK(pending[k]->test());
  }
  for (int64_t k = 0; k < 5; ++k) {
    const double expected = double(w.size() * (w.size() - 1) / 2 + k * w.size());
    CHECK(tensors[size_t(k)].data<float>()[0] == expected);
    CHECK(tensors[size_t(k)].data<float>()[99999 + k] == expected);
  }
  CHECK_THROWS_WITH(w.start_all_reduce(Tensor::zeros({2}, DType::kI32), Reduce::kSum, "x"),
                    doctest::Contains("expected dense f32"));
}

TEST_CASE("ranks: gather, all_gather and broadcast bring every byte to its place") {
  Communicator& w = world();
  for (int root = 0; root < w.size(); ++root) {
    // Rank r sends r * 70000 bytes: rank 0 none.
    const std::string mine(size_t(w.rank()) * 70000, char('a' + w.rank()));
    const std::vector<std::string> parts = w.gather(mine, root, "texts");
    CHECK(parts.size() == (w.rank() == root ? size_t(w.size()) : 0));
    for (size_t r = 0; r < parts.size(); ++r) CHECK(parts[r] == std::string(r * 70000, char('a' + int(r))));

    std::string text = w.rank() == root ? "from the root" : "something longer than what the root says";
    w.broadcast(text, root, "a text");
    CHECK(text == "from the root");
    text = std::string(w.rank() == root ? 0 : 1, 'x');
    w.broadcast(text, root, "an empty text");
    CHECK(text.empty());
    int64_t value = w.rank();
    w.broadcast(value, root, "a number");
    CHECK(value == root);
    const Tensor t = Tensor::full({3, 5}, w.rank(), DType::kI64);
    const uint64_t version = t.version();
    w.broadcast(t, root, "a tensor");
    CHECK(t.to_vector<int64_t>() == std::vector<int64_t>(15, root));
    CHECK((t.version() != version) == (w.rank() != root));
  }
  struct Pair {
    double a;
    int32_t b;
  };
  const std::vector<Pair> all = w.all_gather(Pair{w.rank() * 0.5, w.rank()}, "pairs");
  REQUIRE(all.size() == size_t(w.size()));
  for (int r = 0; r < w.size(); ++r) CHECK((all[size_t(r)].a == r * 0.5 && all[size_t(r)].b == r));
  w.barrier("of the test");
}
