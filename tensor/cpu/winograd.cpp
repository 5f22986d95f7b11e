#include "tensor/cpu/winograd.h"

#include <algorithm>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/amx.h"
#include "tensor/cpu/conv_band.h"
#include "tensor/cpu/conv_plan.h"
#include "tensor/cpu/conv_weight_in_place.h"
#include "tensor/cpu/winograd_tile.h"

namespace tessera::cpu {

namespace {

constexpr int64_t kLeastChannels = 16;  // of either side: fewer fill no vector of AVX-512
// With stride 2, by what was measured (docs/performance.md): 16>32 was slower, and gradients repay their transforms for more pairs of
// channels only.
constexpr int64_t kLeastChannels2 = 32, kLeastPairsOfData2 = 48 * 96, kLeastPairsOfWeights2 = 128 * 256;
// Of an image, up to which gradients of filters of kTapwisePairs with stride 2 stay plain sums: shared out by taps those are faster.
constexpr int64_t kTapwisePixels2 = 400;
constexpr int64_t kFilterProducts = 1000;              // what transforming a filter costs, in products of each pair of channels,
constexpr int64_t kTurnedFilterProducts = 1500;        // at stride 1 if it is turned on the way, too, and not shared out;
constexpr int64_t kStride2FilterProducts = 2900;       // with stride 2 forward, where it costs more for each
constexpr int64_t kStride2PairsOfProduct = 33;         // of so many pairs, since it is far from L2 and read for few pixels;
constexpr int64_t kCallProducts = 1500 * 1000;         // and what a call of the forward pass or by the data does, in products in all
constexpr int64_t kFarFilter = int64_t(16) << 20;      // values of a transformed filter: a larger one comes from memory again,
constexpr int64_t kFarFilterProducts = 5000;           // and costs this instead
constexpr int64_t kBlockBytes = 640 * 1024;            // transformed inputs and products of a task: most of L2
constexpr int64_t kLeastBlock = 28, kMostBlock = 112;  // tiles; two heights of the register tile use each weight often enough
constexpr int64_t kHeight = 14;                        // of the register tile
constexpr int64_t kEnoughBlocks = 4;
constexpr int64_t kFewTiles = 64;     // for so many a filter is shared out:
constexpr int64_t kShareWidth = 128;  // so many outputs, about, or half of fewer
constexpr int64_t kEnoughTasks = 96;  // runs of blocks: keeps 64 threads busy
constexpr int64_t kLineFloats = kLine<float>;
constexpr int64_t kFilterDepth = 32;  // channels of a filter that are transformed at a time

// Of the forward pass and the filter's gradient.
const WinogradForm& form_of(const ConvParams& p) { return p.stride == 1 ? kStride1Form : kStride2Form; }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t whole(int64_t n, int64_t unit) { return ceil_div(n, unit) * unit; }

// Floats from tile to tile: whole vectors, and not half a page apart (Note [Crowded sets] in conv_plan.cpp).
int64_t pitch_of(int64_t channels, int64_t lanes) {
  const int64_t floats = whole(channels, lanes);
  return floats % 512 == 0 ? floats + kLineFloats : floats;
}

// The tiles of size x size of a batch of images, row by row.
struct TileGrid {
  int64_t rows, columns, tiles;
  TileGrid(const ImageView& y, int64_t size)
      : rows(ceil_div(y.h, size)), columns(ceil_div(y.w, size)), tiles(y.n * rows * columns) {}
};
// Where the squares of pixels that belong to the tiles lie in an image.
struct Squares {
  int64_t offset, step, size;  // of one axis: the first of the first tile's; to the next tile's; pixels
};
struct SquarePlace {
  int64_t n, row, column;  // of its first pixel
};
SquarePlace place(const TileGrid& grid, int64_t tile, const Squares& s) {
  const int64_t row = tile / grid.columns;
  return {row / grid.rows, row % grid.rows * s.step + s.offset, tile % grid.columns * s.step + s.offset};
}

// Bit i: whether pixel first + i of an axis of `size` pixels is one of the image's.
uint32_t bits_inside(int64_t first, int64_t count, int64_t size) {
  const auto below = [](int64_t n) { return (uint32_t{1} << n) - 1; };
  return below(std::clamp<int64_t>(size - first, 0, count)) & ~below(std::clamp<int64_t>(-first, 0, count));
}
template <class T>
PixelSquare<T> square_at(const ImageView& x, const SquarePlace& at, int64_t size) {
  const int64_t first = ((at.n * x.h + at.row) * x.w + at.column) * x.pitch;  // may be before the image
  return {{data<const T>(x) + first, x.w * x.pitch, x.pitch}, bits_inside(at.row, size, x.h), bits_inside(at.column, size, x.w)};
}

// Blocks of tiles that a task takes: all of the same size but for one tile.
struct Blocks {
  int64_t count, size;  // size: of the largest
  Blocks(int64_t tiles, int64_t bytes_of_tile, int64_t shares) {
    const int64_t fitting = kBlockBytes / bytes_of_tile / kHeight * kHeight;
    count = ceil_div(tiles, std::clamp(fitting, kLeastBlock, kMostBlock));
    if (count < kEnoughBlocks && shares == 1) count = std::clamp(ceil_div(tiles, kHeight), count, kEnoughBlocks);
    size = ceil_div(tiles, std::max<int64_t>(count, 1));
  }
};

// Memory that the tiles [first, end) will touch, to be fetched into L2 while the products of the tiles before them run: the
// transforms come in bursts, and without it memory rests between them and is waited for in them.
class Fetches {
 public:
  Fetches(const TileGrid& grid, int64_t first, int64_t end) : grid_(grid), first_(first), end_(end) {}
  // The squares of these tiles, without rows that those of the tiles above have touched.
  template <class T>
  void add(const ImageView& x, const Squares& squares) {
    for (int64_t tile = first_; tile < end_;) {
      const int64_t row_end = std::min(end_, (tile / grid_.columns + 1) * grid_.columns);
      const SquarePlace at = place(grid_, tile, squares);
      const int64_t column = std::clamp<int64_t>(at.column, 0, x.w);
      const int64_t column_end = std::clamp<int64_t>(at.column + (row_end - tile - 1) * squares.step + squares.size, 0, x.w);
      const int64_t known = at.row == squares.offset ? 0 : squares.size - squares.step;
      for (int64_t r = std::max<int64_t>(0, at.row + known); r < std::min(x.h, at.row + squares.size); ++r) {
        rows_.push_back(ahead_of<T>(x, (at.n * x.h + r) * x.w + column, column_end - column, 0, x.c));
      }
      tile = row_end;
    }
  }
  // The share of one of `jobs` jobs; nothing when there are more rows than jobs, which are then short.
  Ahead share(int64_t job, int64_t jobs) const {
    const auto rows = static_cast<int64_t>(rows_.size());
    const int64_t parts = rows == 0 ? 0 : jobs / rows;
    if (parts == 0 || job / parts >= rows) return {};
    return rows_[static_cast<size_t>(job / parts)].part(job % parts, parts);
  }

 private:
  const TileGrid& grid_;
  int64_t first_, end_;
  std::vector<Ahead> rows_;
};

// Neighbouring groups of a filter and what they write: `channels` of the output from `channel` on.
struct FilterShare {
  size_t group, group_end;
  int64_t channel, channels, width;  // width: whole vectors
};

// u in the order of RowJob::w for each frequency: [frequency][group][depth][columns of the group].
struct FilterShape {
  std::vector<ChannelGroup> groups;
  std::vector<int64_t> starts;
  int64_t width, depth;
  FilterShape(int64_t columns, int64_t depth_, const TileShape& tile)
      : groups(channel_groups(columns, tile)),
        starts(packed_starts(groups, tile)),
        width(packed_width(groups, tile)),
        depth(depth_) {}
  int64_t plane() const { return width * depth; }
  int64_t size() const { return kFrequencies * plane(); }
  FilterShare share(int64_t i, int64_t shares) const {
    const auto count = static_cast<int64_t>(groups.size());
    const auto group = static_cast<size_t>(i * count / shares), end = static_cast<size_t>((i + 1) * count / shares);
    const int64_t channel = groups[group].start, next = end < groups.size() ? starts[end] : width;
    return {group, end, channel, groups[end - 1].start + groups[end - 1].channels - channel, next - starts[group]};
  }
  int64_t widest_share(int64_t shares) const {
    int64_t most = 0;
    for (int64_t i = 0; i < shares; ++i) most = std::max(most, share(i, shares).width);
    return most;
  }
};

// Into how many equal shares the filter of a convolution of `tiles` tiles is cut, each of which is a task for all tiles. Where
// tiles are few, most of what a core reads is the filter: it reads its share alone then, and transforms the inputs again for it.
int64_t shares_of(const FilterShape& filter, int64_t tiles) {
  const auto count = static_cast<int64_t>(filter.groups.size());
  if (tiles > kFewTiles) return 1;
  for (int64_t shares = std::max<int64_t>(2, filter.width / kShareWidth); shares <= count; ++shares)
    if (count % shares == 0) return shares;
  return 1;
}

// Outputs are the columns. The transform has input channels in its lanes, so it is turned on the way.
template <class T>
void transform_filter(const FilterView& w, const FilterShape& shape, const WinogradForm& form, float* u) {
  const TileKernels<float> k = tile_kernels<float>();
  const WinogradKernels<T> transforms = winograd_kernels<T>(form);
  const int64_t parts = ceil_div(w.i, kFilterDepth);
  parallel_chunks(static_cast<int64_t>(shape.groups.size()) * parts, [&](int64_t chunk) {
    const auto g = static_cast<size_t>(chunk / parts);
    const ChannelGroup& group = shape.groups[g];
    const int64_t columns = group.vectors * k.lanes;
    const int64_t first = chunk % parts * kFilterDepth;
    const int64_t depth = std::min(kFilterDepth, w.i - first);
    const int64_t plane = columns * kFilterDepth;
    float* turned = thread_scratch<float>(kFrequencies * plane);
    for (int64_t o = 0; o < group.channels; ++o) {
      transforms.filter(data<const T>(w) + (group.start + o) * 9 * w.i + first, w.i, false, depth, turned + o * kFilterDepth,
                        plane);
    }
    for (int64_t f = 0; f < kFrequencies; ++f) {
      float* to = u + f * shape.plane() + shape.starts[g] * shape.depth + first * columns;
      k.pack(to, columns, turned + f * plane, kFilterDepth, 1, group.channels, depth);
    }
  });
}

// For the data gradient: inputs are the columns, taps run backwards.
template <class T>
void transform_filter_of_gradient(const FilterView& w, const FilterShape& shape, const WinogradForm& form, float* u) {
  const int64_t lanes = tile_kernels<float>().lanes;
  const WinogradKernels<T> transforms = winograd_kernels<T>(form);
  const int64_t parts = ceil_div(w.o, kFilterDepth);
  parallel_chunks(static_cast<int64_t>(shape.groups.size()) * parts, [&](int64_t chunk) {
    const auto g = static_cast<size_t>(chunk / parts);
    const ChannelGroup& group = shape.groups[g];
    const int64_t first = chunk % parts * kFilterDepth;
    for (int64_t o = first; o < std::min(w.o, first + kFilterDepth); ++o) {
      float* to = u + shape.starts[g] * shape.depth + o * group.vectors * lanes;
      transforms.filter(data<const T>(w) + o * 9 * w.i + group.start, w.i, true, group.channels, to, shape.plane());
    }
  });
}

// What both directions do: y (+)= epilogue of the windows of x times the filter that u holds; the first one begins at x[-pad,
// -pad].
template <class T>
struct TiledConv {
  WinogradForm form;
  ImageView x, y;
  int64_t pad;
  const float* u;
  const float* bias = nullptr;  // padded to whole vectors
  bool silu = false, accumulate = false;
  ImageView residual{};
  ChannelMoments* moments = nullptr;  // where not null, gathers those of y
};

// The blocks of a convolution of images of `channels`, and the memory of one: transformed inputs and products.
struct BlockMemory {
  int64_t v_pitch, m_pitch;
  Blocks blocks;
  int64_t v_plane, m_plane;
  int64_t products;
  BlockMemory(const WinogradForm& form, const TileGrid& grid, int64_t channels, int64_t width, int64_t shares, int64_t lanes)
      : v_pitch(pitch_of(channels, lanes)),
        m_pitch(pitch_of(width, lanes)),
        blocks(grid.tiles, form.products() * (v_pitch + m_pitch) * int64_t(sizeof(float)), shares),
        v_plane(blocks.size * v_pitch + kLineFloats),
        m_plane(blocks.size * m_pitch + kLineFloats),
        products(form.products()) {}
  int64_t floats() const { return products * (v_plane + m_plane); }
};

template <class T>
void run(const TiledConv<T>& conv, const FilterShape& filter) {
  const TileKernels<float> k = tile_kernels<float>();
  const auto& [form, x, y, pad, u, bias, silu, accumulate, residual, moments] = conv;
  const WinogradKernels<T> transforms = winograd_kernels<T>(form);
  const Squares windows{-pad, form.input_step, form.inputs}, outputs{0, form.outputs, form.outputs};
  const TileGrid grid(y, form.outputs);
  const int64_t shares = shares_of(filter, grid.tiles);
  const BlockMemory memory(form, grid, x.c, filter.widest_share(shares), shares, k.lanes);
  const auto& [v_pitch, m_pitch, blocks, v_plane, m_plane, products] = memory;
  const int64_t tasks = std::min(blocks.count, kEnoughTasks);
  const bool next_task_too = tasks >= 2 * compute_threads();  // at least half of them are followed by the next one on their thread
  const auto block_begin = [&](int64_t block) { return block * grid.tiles / blocks.count; };
  const auto run_block = [&](int64_t block, const FilterShare& share, int64_t part, bool last_of_task) {
    const int64_t first = block_begin(block), end = block_begin(block + 1);
    ImageView y_of_share = y;
    y_of_share.p = data<T>(y) + share.channel;
    y_of_share.c = share.channels;
    float* v = thread_scratch<float>(memory.floats());
    float* m = v + products * v_plane;
    for (int64_t t = first; t < end; ++t) {
      transforms.input(square_at<T>(x, place(grid, t, windows), form.inputs), x.c, {v, v_plane, v_pitch}, t - first);
    }
    Fetches fetches(grid, end, last_of_task && !next_task_too ? end : block_begin(std::min(block + 2, blocks.count)));
    fetches.add<T>(x, windows);
    fetches.add<T>(y_of_share, outputs);
    RowJob<float> job;
    job.a_step = v_pitch;
    job.run = x.c;
    job.y_step = m_pitch;
    const auto groups = static_cast<int64_t>(share.group_end - share.group);
    for (int64_t f = 0; f < kFrequencies; ++f) {
      job.pixels = (end - first) * form.sharing(f);
      job.a = v + form.before(f) * v_plane;
      for (size_t g = share.group; g < share.group_end; ++g) {
        const ChannelGroup& group = filter.groups[g];
        job.ahead = fetches.share(f * groups + int64_t(g - share.group), kFrequencies * groups);
        job.vectors = group.vectors;
        job.channels = group.vectors * k.lanes;
        job.w = u + f * filter.plane() + filter.starts[g] * filter.depth;
        job.y = m + form.before(f) * m_plane + group.start - share.channel;
        k.row(job);
      }
    }
    WinogradOutput<T> out;
    out.m = {m, m_plane, m_pitch};
    out.channels = share.channels;
    out.bias = bias ? bias + filter.starts[share.group] : nullptr;
    out.silu = silu;
    out.accumulate = accumulate;
    for (int64_t t = first; t < end; ++t) {
      const SquarePlace at = place(grid, t, outputs);
      const int64_t pixel = (at.n * y.h + at.row) * y.w + at.column;
      out.tile = t - first;
      out.y = {data<T>(y_of_share) + pixel * y.pitch, y.w * y.pitch, y.pitch};
      if (residual.p) {
        out.residual = {data<const T>(residual) + pixel * residual.pitch + share.channel, y.w * residual.pitch, residual.pitch};
      }
      out.rows = std::min(form.outputs, y.h - at.row);
      out.columns = std::min(form.outputs, y.w - at.column);
      transforms.output(out);
    }
    if (!moments) return;
    for (int64_t t = first; t < end;) {  // rows of tiles
      const int64_t row_end = std::min(end, (t / grid.columns + 1) * grid.columns);
      const SquarePlace at = place(grid, t, outputs);
      const int64_t columns = std::min((row_end - t) * form.outputs, y.w - at.column);
      const int64_t rows = std::min(form.outputs, y.h - at.row);
      T* const pixels = data<T>(y_of_share) + ((at.n * y.h + at.row) * y.w + at.column) * y.pitch;
      if (columns == y.w) {
        moments->add(part, {pixels, y.t, rows * columns, share.channels, y.pitch}, share.channel);
      } else {
        for (int64_t r = 0; r < rows; ++r)
          moments->add(part, {pixels + r * y.w * y.pitch, y.t, columns, share.channels, y.pitch}, share.channel);
      }
      t = row_end;
    }
  };
  if (moments) moments->start(tasks * shares);
  parallel_chunks(tasks * shares, [&](int64_t chunk) {
    const FilterShare share = filter.share(chunk / tasks, shares);
    const int64_t task = chunk % tasks, end = (task + 1) * blocks.count / tasks;
    for (int64_t block = task * blocks.count / tasks; block < end; ++block) run_block(block, share, chunk, block + 1 == end);
  });
}

template <class T>
void run_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                ChannelMoments* moments) {
  const TileKernels<float> k = tile_kernels<float>();
  const FilterShape filter(w.o, w.i, k);
  const HostScratch<float> own(w.packed ? 0 : filter.size()), bias(epilogue.bias ? filter.width : 0);
  const WinogradForm& form = form_of(p);
  if (!w.packed) transform_filter<T>(w, filter, form, own.get());
  TiledConv<T> conv{form, x, y, p.pad, w.packed ? static_cast<const float*>(w.packed) : own.get()};
  if (epilogue.bias) {
    pad_bias(static_cast<const float*>(epilogue.bias), filter.groups, k, bias.get());
    conv.bias = bias.get();
  }
  conv.silu = epilogue.activation == Activation::kSilu;
  conv.residual = epilogue.residual;
  conv.moments = moments;
  run(conv, filter);
}

template <class T>
void run_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate) {
  const FilterShape filter(w.i, w.o, tile_kernels<float>());
  const HostScratch<float> u(filter.size());
  const WinogradForm& form = p.stride == 1 ? kStride1Form : kStride2DataForm;
  transform_filter_of_gradient<T>(w, filter, form, u.get());
  TiledConv<T> conv{form, dy, dx, p.stride == 1 ? 2 - p.pad : 0, u.get()};
  conv.accumulate = accumulate;
  run(conv, filter);
}

// Tasks are parts of the tiles x ranges of output channels; each sums in the transformed domain, in memory of its own. Parts are
// added in order, so nothing depends on the number of threads.
struct WeightCut {
  int64_t parts, outputs;
  WeightCut(const WinogradForm& form, int64_t tiles, const FilterView& dw) {
    constexpr int64_t kEnoughParts = 12, kLeastProducts = 192 * 36;  // of a part: its sums are transformed and added once
    constexpr int64_t kSumFloats = 1000 * 1000;          // of a task: a share of L3, where smaller ones transform x again
    constexpr int64_t kPartialFloats = 4 * 1024 * 1024;  // all parts together
    outputs = std::clamp<int64_t>(ceil_div(kFrequencies * dw.o * dw.i, kSumFloats), 1, ceil_div(dw.o, 32));
    const int64_t most =
        std::max<int64_t>(1, std::min(tiles * form.products() / kLeastProducts, kPartialFloats / (dw.o * 9 * dw.i)));
    parts = std::min(ceil_div(kEnoughParts, outputs), most);
    outputs = std::max(outputs, std::min(ceil_div(kEnoughBlocks, parts), ceil_div(dw.o, kHeight)));
  }
};

constexpr int64_t kWeightUnit = 6;    // output channels of the register tile
constexpr int64_t kWeightBlock = 48;  // tiles: enough to hide loading and storing the sums

// The memory of a task for `outputs` output channels: `tiles` transformed ones of x and dy, and the sums.
struct WeightMemory {
  int64_t x_pitch, d_pitch, sum_pitch, x_plane, d_plane, sum_plane, products;
  WeightMemory(const WinogradForm& form, int64_t tiles, int64_t inputs, int64_t outputs, int64_t lanes)
      : x_pitch(pitch_of(inputs, lanes)),
        d_pitch(pitch_of(outputs, lanes)),
        sum_pitch(whole(inputs, lanes)),
        x_plane(tiles * x_pitch + kLineFloats),
        d_plane(tiles * d_pitch + kLineFloats),
        sum_plane(outputs * sum_pitch),
        products(form.products()) {}
  int64_t floats() const { return products * (x_plane + d_plane) + kFrequencies * sum_plane; }
};

template <class T>
void run_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  const TileKernels<float> k = tile_kernels<float>();
  const WinogradForm& form = form_of(p);
  const WinogradKernels<T> transforms = winograd_kernels<T>(form);
  const Squares windows{-p.pad, form.input_step, form.inputs}, tiles{0, form.outputs, form.outputs};
  const TileGrid grid(dy, form.outputs);
  const WeightCut cut(form, grid.tiles, dw);
  const int64_t size = dw.o * 9 * dw.i;
  const HostScratch<float> partial(cut.parts > 1 ? cut.parts * size : 0);
  const auto outputs_until = [&](int64_t range) {
    return std::min(dw.o, range * ceil_div(dw.o, kWeightUnit) / cut.outputs * kWeightUnit);
  };
  parallel_chunks(cut.parts * cut.outputs, [&](int64_t task) {
    const int64_t part = task / cut.outputs;
    const int64_t o = outputs_until(task % cut.outputs), outputs = outputs_until(task % cut.outputs + 1) - o;
    const int64_t begin = part * grid.tiles / cut.parts, end = (part + 1) * grid.tiles / cut.parts;
    const int64_t count = ceil_div(end - begin, kWeightBlock);
    const WeightMemory memory(form, ceil_div(end - begin, std::max<int64_t>(count, 1)), x.c, outputs, k.lanes);
    const auto& [x_pitch, d_pitch, sum_pitch, x_plane, d_plane, sum_plane, products] = memory;
    float* v = thread_scratch<float>(memory.floats());
    float* d = v + products * x_plane;
    float* sums = d + products * d_plane;
    ImageView range = dy;
    range.p = data<T>(dy) + o;
    range.c = outputs;
    WeightJob<float> job;
    job.rows = 1;
    job.outputs = outputs;
    job.run = x.c;
    job.x_step = x_pitch;
    job.d_step = d_pitch;
    job.dw_step = sum_pitch;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = begin + i * (end - begin) / count, last = begin + (i + 1) * (end - begin) / count;
      for (int64_t t = first; t < last; ++t) {
        transforms.gradient(square_at<T>(range, place(grid, t, tiles), form.outputs), outputs, {d, d_plane, d_pitch}, t - first);
        transforms.input(square_at<T>(x, place(grid, t, windows), form.inputs), x.c, {v, x_plane, x_pitch}, t - first);
      }
      Fetches fetches(grid, last, begin + std::min(i + 2, count) * (end - begin) / count);
      fetches.add<T>(x, windows);
      fetches.add<T>(range, tiles);
      for (int64_t f = 0; f < kFrequencies; ++f) {
        fetches.share(f, kFrequencies).fetch();
        job.pixels = (last - first) * form.sharing(f);
        job.x = v + form.before(f) * x_plane;
        job.d = d + form.before(f) * d_plane;
        job.dw = sums + f * sum_plane;
        k.weight(job);
      }
      job.accumulate = true;
    }
    float* out = (cut.parts > 1 ? partial.get() + part * size : data<float>(dw)) + o * 9 * x.c;
    const bool add = cut.parts == 1 && accumulate;
    for (int64_t c = 0; c < outputs; ++c) {
      transforms.filter_gradient(sums + c * sum_pitch, sum_plane, x.c, out + c * 9 * x.c, x.c, add);
    }
  });
  if (cut.parts > 1) add_partials(partial.get(), cut.parts, size, data<float>(dw), accumulate);
}

}  // namespace

bool takes_winograd(ConvPass pass, const FilterView& w, const ConvParams& p) {
  if (w.kh != 3 || w.kw != 3) return false;
  if (p.stride == 1 ? p.pad > 2 : p.stride != 2 || p.pad != 1) return false;
  if (std::min(w.o, w.i) < (p.stride == 1 ? kLeastChannels : kLeastChannels2)) return false;
  const int64_t pairs = pass == ConvPass::kForward ? 0 : pass == ConvPass::kBackwardData ? kLeastPairsOfData2 : kLeastPairsOfWeights2;
  if (p.stride == 2 && w.o * w.i < pairs) return false;
  // 9 products of bf16 at twice the rate are less than 5 in f32; and AMX is faster than both forms.
  if (w.t == DType::kBF16 && multiplies_bf16() && (p.stride == 2 || tile_unit() != TileUnit::kVectors)) return false;
  const ConvChoice here = conv_choice_here();
  return (here == ConvChoice::kAuto ? conv_choice() : here) != ConvChoice::kDirect;
}

bool packs_winograd(const FilterView& w, const ConvParams& p) { return p.stride == 1 && takes_winograd(ConvPass::kForward, w, p); }

// What a transformed filter costs, in products of each pair of channels, for a convolution of `tiles` tiles.
static int64_t filter_products(ConvPass pass, const FilterView& w, const ConvParams& p, int64_t tiles) {
  if (pass == ConvPass::kBackwardWeight) return kFilterProducts;
  if (pass == ConvPass::kForward && p.stride == 2) return kStride2FilterProducts + w.o * w.i / kStride2PairsOfProduct;
  if (form_of(p).products() * w.o * w.i > kFarFilter) return kFarFilterProducts;
  if (pass == ConvPass::kBackwardData) return kFilterProducts;
  const bool shared_out = shares_of(FilterShape(w.o, w.i, tile_kernels<float>()), tiles) > 1;
  return shared_out ? kFilterProducts : kTurnedFilterProducts;
}

bool repays_winograd(ConvPass pass, const FilterView& w, const ImageView& y, const ConvParams& p) {
  if (w.packed) return packs_winograd(w, p);
  if (!takes_winograd(pass, w, p)) return false;
  if (pass == ConvPass::kBackwardWeight && p.stride == 2 && w.o * w.i >= kTapwisePairs && y.h * y.w <= kTapwisePixels2) return false;
  const WinogradForm& form = form_of(p);
  const int64_t tiles = TileGrid(y, form.outputs).tiles, products = form.products() * tiles;
  const bool few = pass != ConvPass::kBackwardWeight && p.stride == 1;
  // The transforms of the images: a fifth, or more.
  return 9 * y.n * y.h * y.w > products * 6 / 5 + filter_products(pass, w, p, tiles) + (few ? kCallProducts / (w.o * w.i) : 0);
}

ConvScratch winograd_scratch(ConvPass pass, const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p) {
  const int64_t lanes = tile_kernels<float>().lanes;
  const auto bytes = [](int64_t floats) { return floats * int64_t(sizeof(float)); };
  if (pass == ConvPass::kBackwardWeight) {
    const WinogradForm& form = form_of(p);
    const TileGrid grid(y, form.outputs);
    const WeightCut cut(form, grid.tiles, w);
    const int64_t outputs = std::min(w.o, ceil_div(ceil_div(w.o, kWeightUnit), cut.outputs) * kWeightUnit);
    const WeightMemory memory(form, std::min(kWeightBlock, ceil_div(grid.tiles, cut.parts)), w.i, outputs, lanes);
    return {bytes(cut.parts > 1 ? cut.parts * w.o * 9 * w.i : 0), bytes(memory.floats())};
  }
  const bool forward = pass == ConvPass::kForward;
  const FilterShape filter(forward ? w.o : w.i, forward ? w.i : w.o, tile_kernels<float>());
  const WinogradForm& form = p.stride == 1 ? kStride1Form : forward ? kStride2Form : kStride2DataForm;
  const TileGrid grid(forward ? y : x, form.outputs);
  const int64_t shares = shares_of(filter, grid.tiles);
  const BlockMemory memory(form, grid, filter.depth, filter.widest_share(shares), shares, lanes);
  return {bytes(w.packed ? 0 : filter.size()), bytes(memory.floats())};
}

int64_t winograd_filter_size(const FilterView& w) {
  const int64_t floats = FilterShape(w.o, w.i, tile_kernels<float>()).size();
  return w.t == DType::kBF16 ? floats * 2 : floats;
}

void winograd_pack_filter(const FilterView& w, void* packed) {
  const FilterShape shape(w.o, w.i, tile_kernels<float>());
  float* u = static_cast<float*>(packed);
  w.t == DType::kBF16 ? transform_filter<BFloat16>(w, shape, kStride1Form, u) : transform_filter<float>(w, shape, kStride1Form, u);
}

void winograd_conv2d(const ImageView& x, const FilterView& w, const ImageView& y, const ConvParams& p, const ConvEpilogue& epilogue,
                     ChannelMoments* moments) {
  x.t == DType::kBF16 ? run_conv2d<BFloat16>(x, w, y, p, epilogue, moments) : run_conv2d<float>(x, w, y, p, epilogue, moments);
}

void winograd_backward_data(const ImageView& dy, const FilterView& w, const ImageView& dx, const ConvParams& p, bool accumulate) {
  dy.t == DType::kBF16 ? run_backward_data<BFloat16>(dy, w, dx, p, accumulate) : run_backward_data<float>(dy, w, dx, p, accumulate);
}

void winograd_backward_weight(const ImageView& x, const ImageView& dy, const FilterView& dw, const ConvParams& p, bool accumulate) {
  x.t == DType::kBF16 ? run_backward_weight<BFloat16>(x, dy, dw, p, accumulate)
                      : run_backward_weight<float>(x, dy, dw, p, accumulate);
}

}  // namespace tessera::cpu
