#include <doctest/doctest.h>

#include "tensor/base/check.h"
#include "yolo/eval/eval_bench.h"

using namespace tessera;

TEST_CASE("eval bench: a small set goes through and is always the same") {
  EvalBenchOptions o;
  o.images = 70, o.height = 120, o.width = 160, o.classes = 4, o.detections_per_image = 30;
  const EvalBenchResult a = run_eval_bench(o), b = run_eval_bench(o);
  CHECK((a.images == 70 && a.detections == 2100 && a.objects > 300 && a.bytes > 100000));
  CHECK(a.objects == b.objects);
  for (int i = 0; i < 12; ++i) {
    CHECK(a.box.summary.values[i] == b.box.summary.values[i]);
    CHECK(a.mask.summary.values[i] == b.mask.summary.values[i]);
  }
  CHECK((a.box.summary.map() > 0.05 && a.box.summary.map() < 0.95));
  CHECK((a.mask.summary.map() > 0.05 && a.mask.summary.map() < 0.95));
  CHECK(a.mask.total() > 0);
  o.images = 0;
  CHECK_THROWS_AS(run_eval_bench(o), Error);
}
