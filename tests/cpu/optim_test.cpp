#include <doctest/doctest.h>

#include <limits>

#include "tests/cpu/support.h"

using namespace tessera;
using namespace tessera::testing;

namespace {
struct Size {
  int64_t rows, cols, gap;
};
const std::vector<Size> kSizes = {{1, 1, 0}, {1, 1000, 0}, {1, 100003, 0}, {30, 17, 3}};
}  // namespace

TEST_CASE("sgd: first step, momentum, Nesterov") {
  for (const Size& s : kSizes) {
    const Rows p0 = Rows::random(s.rows, s.cols, s.gap, 1), v0 = Rows::random(s.rows, s.cols, s.gap, 2);
    Rows g = Rows::random(s.rows, s.cols, 0, 3);
    for (bool nesterov : {false, true}) {
      for (bool first_step : {false, true}) {
        compare(
            [&](Backend& b) {
              Rows p = p0, v = v0;
              b.sgd(p.view(), g.view(), v.view(), 0.5, {0.01, 0.9, 5e-4, nesterov, first_step});
              Outputs out;
              append(out, p);
              append(out, v);
              return out;
            },
            1e-6, 1e-6);
      }
    }
  }
}

TEST_CASE("adam and adamw") {
  for (const Size& s : kSizes) {
    const Rows p0 = Rows::random(s.rows, s.cols, s.gap, 4), m0 = Rows::random(s.rows, s.cols, s.gap, 5),
               v0 = Rows::random(s.rows, s.cols, 0, 6, 0, 2);
    Rows g = Rows::random(s.rows, s.cols, 0, 7);
    for (bool decoupled : {false, true}) {
      for (int64_t step : {1, 1000}) {
        compare(
            [&](Backend& b) {
              Rows p = p0, m = m0, v = v0;
              b.adam(p.view(), g.view(), m.view(), v.view(), 0.25, {1e-3, 0.9, 0.999, 1e-8, 0.01, decoupled, step});
              Outputs out;
              for (const Rows* r : {&p, &m, &v}) append(out, *r);
              return out;
            },
            2e-6, 1e-6);
      }
    }
  }
}

TEST_CASE("lerp, sum_of_squares, all_finite") {
  for (const Size& s : kSizes) {
    Rows x = Rows::random(s.rows, s.cols, s.gap, 8);
    const Rows y0 = Rows::random(s.rows, s.cols, 1, 9);
    compare(
        [&](Backend& b) {
          Rows y = y0;
          b.lerp(y.view(), x.view(), 1e-3);
          Outputs out;
          append(out, y);
          out.push_back(float(b.sum_of_squares(x.view())));
          out.push_back(float(b.all_finite(x.view())));
          for (float special : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::max()}) {
            Rows changed = x;
            changed.at(s.rows - 1, s.cols - 1) = special;
            out.push_back(float(b.all_finite(changed.view())));
          }
          return out;
        },
        1e-6, 1e-6);
  }
}

TEST_CASE("sum_of_squares: in double, so that small gradients count beside large ones") {
  Rows x = Rows::random(1, 70001, 0, 10, 1e-3f, 1e-3f);
  x.at(0, 0) = 1e4f;
  CpuBackend backend;
  if (cpu::runnable_targets().empty()) return;
  const double small = double(1e-3f);
  CHECK(backend.sum_of_squares(x.view()) == doctest::Approx(1e8 + 70000 * small * small).epsilon(1e-13));
}
