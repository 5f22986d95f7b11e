#include "tensor/ops/update.h"

#include "tensor/backend.h"
#include "tensor/ops/checks.h"

namespace tessera::ops {

void update(const UpdateArrays<Tensor>& a, const Tensor& settings, const Tensor& state, const UpdateParams& p) {
  check_defined("update", "values", a.values);
  const int64_t trained = a.ends[kTrainedGroups - 1], all = a.ends[kTrainedGroups];
  int64_t before = 0;
  for (int64_t end : a.ends) {
    TESSERA_CHECK(end >= before && end % 16 == 0, "update: group ends at {} after {}, expected multiples of 16", end, before);
    before = end;
  }
  const bool sgd = p.rule == UpdateRule::kSgd;
  const auto check = [&](const char* what, const Tensor& t, int64_t size) {
    check_like("update", what, t, {size}, a.values);
    TESSERA_CHECK(t.is_dense() && (t.dtype() == DType::kF32 || t.dtype() == DType::kF64),
                  "update: got {} {}, expected dense f32 or f64", what, describe(t));
    t.bump_version();
  };
  check("values", a.values, all);
  check("average", a.average, all);
  check("grads", a.grads, trained);
  check("first", a.first, trained);
  if (!sgd) check("second", a.second, trained);
  const auto check_numbers = [&](const char* what, const Tensor& t, int64_t size) {
    TESSERA_CHECK(
        t.defined() && t.dtype() == DType::kF64 && t.shape() == Shape{size} && t.is_dense() && t.device() == a.values.device(),
        "update: got {} {}, expected f64[{}] where the values are", what, describe(t), size);
  };
  check_numbers("settings", settings, kUpdateSettings);
  check_numbers("state", state, kUpdateSlots);
  state.bump_version();
  const UpdateArrays<RowsView> rows{a.values.rows(),  a.grads.rows(), a.first.rows(), sgd ? RowsView{} : a.second.rows(),
                                    a.average.rows(), a.ends};
  backend_for(a.values.device()).update(rows, static_cast<const double*>(settings.raw()), static_cast<double*>(state.raw()), p);
}

}  // namespace tessera::ops
