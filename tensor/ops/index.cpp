#include "tensor/ops/index.h"

#include <vector>

#include "tensor/ops/checks.h"

namespace tessera::ops {

namespace {
// A device cannot stop on a bad index, so only host indices are looked at.
void check_index(std::string_view op, const Tensor& index, std::span<const RowsView> tables, int64_t rows, Device device) {
  check_type_and_device(op, "index", index, DType::kI64, device);
  const auto n = int64_t(tables.size());
  TESSERA_CHECK(n >= 1 && n <= int64_t(kMostTables) && index.rank() >= 1 && index.rank() <= 2 && index.is_dense() &&
                    index.numel() == n * rows && (index.rank() == 1 ? n == 1 : index.size(0) == n),
                "{}: got index {} of {} tables, expected one index for each row of each", op, describe(index), n);
  if (device.kind != Device::Kind::kCpu) return;
  const int64_t* p = index.data<int64_t>();
  for (int64_t i = 0; i < index.numel(); ++i) {
    const int64_t most = tables[size_t(i / rows)].rows;
    TESSERA_CHECK(p[i] >= -1 && p[i] < most, "{}: got index[{}] = {}, expected -1 <= index < {}", op, i, p[i], most);
  }
}
}  // namespace

Tensor gather_rows(std::span<const Tensor> tables, const Tensor& index) {
  constexpr std::string_view op = "gather_rows";
  TESSERA_CHECK(!tables.empty(), "{}: got no table", op);
  check_defined(op, "index", index);
  std::vector<Tensor> readables;
  std::vector<RowsView> views;
  for (const Tensor& x : tables) {
    check_defined(op, "x", x);
    TESSERA_CHECK(x.rank() >= 1 && x.dtype() == tables[0].dtype() && x.device() == tables[0].device() &&
                      x.size(-1) == tables[0].size(-1),
                  "{}: got x {} beside {}, expected (rows..., cols) of the same type, place and columns", op, describe(x),
                  describe(tables[0]));
    views.push_back(readables.emplace_back(readable(x)).rows());
  }
  const int64_t n = index.rank() == 0 ? 0 : index.size(-1);
  check_index(op, index, views, n, tables[0].device());
  Tensor y = Tensor::empty({n, tables[0].size(-1)}, tables[0].dtype(), tables[0].device());
  backend_for(y.device()).gather_rows(views, index.data<int64_t>(), y.rows());
  return y;
}

Tensor gather_rows(const Tensor& table, const Tensor& index) { return gather_rows(std::span(&table, 1), index); }

void scatter_add_rows(const Tensor& x, const Tensor& index, std::span<const Tensor> tables) {
  constexpr std::string_view op = "scatter_add_rows";
  check_floating(op, "x", x);
  check_defined(op, "index", index);
  TESSERA_CHECK(x.rank() >= 1, "{}: got x {}, expected (rows..., cols)", op, describe(x));
  const Tensor in = readable(x);
  const RowsView rows = in.rows();
  std::vector<RowsView> views;
  for (const Tensor& y : tables) {
    check_type_and_device(op, "y", y, x.dtype(), x.device());
    TESSERA_CHECK(y.rank() >= 1 && x.size(-1) == y.size(-1), "{}: got x {} for y {}, expected equal columns", op, describe(x), describe(y));
    views.push_back(written(op, "y", y).rows());
  }
  check_index(op, index, views, rows.rows, x.device());
  backend_for(x.device()).scatter_add_rows(rows, index.data<int64_t>(), views);
}

void scatter_add_rows(const Tensor& x, const Tensor& index, const Tensor& table) {
  scatter_add_rows(x, index, std::span(&table, 1));
}

}  // namespace tessera::ops
