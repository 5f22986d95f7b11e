// Pixels of masks on the host: the logits of an item's cells, then their enlargement, an item at a time on each thread.
#include <algorithm>

#include "tensor/base/parallel.h"
#include "tensor/bilinear.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/ops/detect_math.h"

namespace tessera {

namespace {

// logits: of the cells `rect` of the prototypes, row by row; 0 outside of the crop.
void mask_logits(const ImageView& p, const MaskItem& m, const float* k, const MaskRect& rect, std::vector<float>& logits) {
  const MaskRect inside{std::max(rect.x0, m.crop.x0), std::max(rect.y0, m.crop.y0), std::min(rect.x1, m.crop.x1),
                        std::min(rect.y1, m.crop.y1)};
  const bool all = inside.width() == rect.width() && inside.height() == rect.height();
  logits.resize(size_t(rect.width() * rect.height()));
  if (!all) std::fill(logits.begin(), logits.end(), 0.0f);
  for (int y = inside.y0; y < inside.y1; ++y) {
    float* row = logits.data() + (y - rect.y0) * rect.width();
    const float* cell = data<float>(p) + ((m.image * p.h + y) * p.w + inside.x0) * p.pitch;
    for (int x = inside.x0; x < inside.x1; ++x, cell += p.pitch) row[x - rect.x0] = detect_math::mask_logit(k, cell, int(p.c));
  }
}

// Bits of the values above 0.
void cut_rows(const float* values, int64_t columns, int64_t rows, uint32_t* words) {
  thread_local std::vector<uint8_t> line;
  line.resize(size_t(columns));
  for (int64_t y = 0; y < rows; ++y, values += columns, words += words_of_row(columns)) {
    std::transform(values, values + columns, line.begin(), [](float v) { return uint8_t(v > 0); });
    pack_bits(line.data(), columns, words);
  }
}

void mask_patch(const ImageView& p, const MaskItem& m, const float* k, uint32_t* words) {
  if (m.words() == 0) return;
  thread_local std::vector<float> logits;
  const MaskRect& s = m.slice;
  if (s.width() == m.width && s.height() == m.height) {
    mask_logits(p, m, k, {m.where.x0 + s.x0, m.where.y0 + s.y0, m.where.x1 + s.x0, m.where.y1 + s.y0}, logits);
    cut_rows(logits.data(), m.where.width(), m.where.height(), words);
    return;
  }
  thread_local BilinearAxis ax, ay;
  ax.set(int(s.width()), m.width, m.where.x0, m.where.x1);
  ay.set(int(s.height()), m.height, m.where.y0, m.where.y1);
  const MaskRect cells{ax.first_cell(), ay.first_cell(), ax.end_cell(), ay.end_cell()};  // of the slice
  mask_logits(p, m, k, {cells.x0 + s.x0, cells.y0 + s.y0, cells.x1 + s.x0, cells.y1 + s.y0}, logits);
  enlarge(logits.data(), cells, ax, ay, 0, words);
}

}  // namespace

void CpuBackend::mask_patches(ImageView prototypes, RowsView coefficients, std::span<const MaskItem> items, uint32_t* words) {
  parallel_chunks(int64_t(items.size()), [&](int64_t i) {
    const MaskItem& m = items[size_t(i)];
    mask_patch(prototypes, m, data<float>(coefficients) + m.row * coefficients.pitch, words + m.offset);
  });
}

}  // namespace tessera
