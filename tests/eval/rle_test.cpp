#include "data/rle.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "tensor/base/check.h"
#include "tensor/bit_rows.h"

using namespace tessera;

namespace {

std::vector<uint8_t> random_mask(int h, int w, double density, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> mask(size_t(h) * size_t(w));
  // Blobs of a few pixels: runs of all lengths.
  for (int k = 0; k < density * h * w / 9; ++k) {
    const int x = int(rng() % unsigned(w)), y = int(rng() % unsigned(h)), r = int(rng() % 4);
    for (int yy = y; yy < std::min(h, y + r); ++yy) {
      for (int xx = x; xx < std::min(w, x + r); ++xx) mask[size_t(yy * w + xx)] = 1;
    }
  }
  return mask;
}

ErrorCode code_of(auto call) {
  try {
    call();
  } catch (const Error& e) {
    return e.code();
  }
  return ErrorCode(0);
}

}  // namespace

TEST_CASE("rle: the compressed text of the specification") {
  std::vector<uint8_t> mask(24);
  for (int y = 1; y <= 2; ++y) {
    for (int x = 2; x <= 4; ++x) mask[size_t(y * 6 + x)] = 1;
  }
  const Rle rle = rle_encode(mask.data(), 4, 6);
  CHECK(rle_to_string(rle) == "9220003");
  CHECK(rle_from_string("9220003", 4, 6) == rle);
  CHECK(rle_area(rle) == 6);
  CHECK(rle_box(rle) == BoxLtwh{2, 1, 3, 2});
}

TEST_CASE("rle: the text of numbers short and long, plain and for JSON") {
  // The definition: five bits at a time, the sixth says that more follow, and the last group's highest bit is the sign.
  const auto defined = [](int64_t x) {
    std::string text;
    for (bool more = true; more;) {
      const int64_t group = x & 31;
      x >>= 5;
      more = (group & 16) != 0 ? x != -1 : x != 0;
      text += char(48 + group + (more ? 32 : 0));
    }
    return text;
  };
  const auto check = [&](int64_t before, int64_t count) {
    const Rle rle{1, 1, {0, uint32_t(before), 0, uint32_t(count)}};
    const std::string plain = fmt::format("0{}0{}", defined(before), defined(count - before));
    std::string escaped, text = "x";
    for (const char c : plain) escaped += c == '\\' ? std::string("\\\\") : std::string(1, c);
    CHECK(rle_to_string(rle) == plain);
    append_rle_string(rle, RleText::kJson, text);
    CHECK(text == "x" + escaped);
  };
  for (int64_t difference = -1100; difference <= 1100; ++difference) check(1200, 1200 + difference);
  for (const int64_t large : {int64_t{0}, int64_t{44}, int64_t{13260}, int64_t{1} << 20, int64_t{0xFFFFFFFF}}) {
    check(0, large), check(large, 0), check(large, 44);
  }
  // Longer than what is gathered at a time.
  Rle many{1, 1, std::vector<uint32_t>(5000, 44)};
  many.counts[4] = 0xFFFFFFFF;
  std::string plain, text;
  for (size_t i = 0; i < many.counts.size(); ++i) plain += defined(int64_t{many.counts[i]} - (i > 2 ? int64_t{many.counts[i - 2]} : 0));
  append_rle_string(many, RleText::kPlain, text);
  CHECK(text == plain);
}

TEST_CASE("rle: polygons of the specification") {
  const auto set = [](const Rle& r, int y, int x) {
    std::vector<uint8_t> mask(30);
    rle_decode(r, mask.data());
    return mask[size_t(y * 6 + x)] == 1;
  };
  const double square[] = {1, 1, 4, 1, 4, 3, 1, 3};
  const Rle a = rle_from_polygon(square, 5, 6);
  CHECK(rle_area(a) == 6);
  for (int y = 1; y <= 2; ++y) {
    for (int x = 1; x <= 3; ++x) CHECK(set(a, y, x));
  }
  const double triangle[] = {.5, .5, 4.2, 1, 3, 3.6};
  const Rle b = rle_from_polygon(triangle, 5, 6);
  CHECK(rle_area(b) == 4);
  CHECK((set(b, 1, 1) && set(b, 1, 2) && set(b, 1, 3) && set(b, 2, 2)));
  CHECK(rle_from_box({1, 1, 3, 2}, 5, 6) == a);
}

TEST_CASE("rle: encoding, decoding, text and boxes agree with pixel loops") {
  const int sizes[][2] = {{1, 1},   {5, 7},   {64, 48},  {17, 130}, {100, 3}, {1, 70},
                          {200, 1}, {63, 31}, {128, 33}, {65, 64},  {70, 530}};
  uint32_t seed = 1;
  for (const auto& [h, w] : sizes) {
    for (double density : {0.0, 0.1, 0.5, 2.0, 40.0}) {
      const auto mask = random_mask(h, w, density, ++seed);
      const Rle rle = rle_encode(mask.data(), h, w);
      std::vector<uint8_t> back(mask.size(), 7);
      rle_decode(rle, back.data());
      CHECK(back == mask);
      CHECK(rle_from_string(rle_to_string(rle), h, w) == rle);
      CHECK(rle_from_counts(std::vector<int64_t>(rle.counts.begin(), rle.counts.end()), h, w) == rle);
      for (size_t i = 1; i < rle.counts.size(); ++i) CHECK(rle.counts[i] > 0);

      int64_t area = 0;
      int x0 = w, y0 = h, x1 = -1, y1 = -1;
      for (int y = 0; y < h; ++y) {
        for (int x = 0; x < w; ++x) {
          if (!mask[size_t(y * w + x)]) continue;
          ++area, x0 = std::min(x0, x), x1 = std::max(x1, x), y0 = std::min(y0, y), y1 = std::max(y1, y);
        }
      }
      CHECK(rle_area(rle) == area);
      RunList runs;
      runs.push_string(rle_to_string(rle), h, w);
      runs.push(rle);
      CHECK(runs.area(0) == area);
      CHECK(std::vector(runs.bounds(0).begin(), runs.bounds(0).end()) == std::vector(runs.bounds(1).begin(), runs.bounds(1).end()));
      if (area == 0) {
        CHECK(rle_box(rle) == BoxLtwh{0, 0, 0, 0});
        continue;
      }
      // A run that crosses into the next column makes the box full height, as in the COCO code; otherwise it is tight.
      const BoxLtwh box = rle_box(rle);
      CHECK((box[0] == x0 && box[2] == x1 - x0 + 1));
      CHECK((box[1] <= y0 && box[1] + box[3] >= y1 + 1));
      // A rectangle of the mask gives the same runs.
      const PixelBox where{x0, y0, x1 + 1, y1 + 1};
      const int64_t columns = where.x1 - where.x0, row_words = words_of_row(columns);
      std::vector<uint32_t> words(size_t(row_words * (where.y1 - where.y0)));
      for (int y = y0; y <= y1; ++y) pack_bits(mask.data() + y * w + x0, columns, words.data() + (y - y0) * row_words);
      CHECK(rle_encode(words.data(), where, h, w) == rle);
    }
  }
}

TEST_CASE("rle: random rows of bits give the runs of their definition, whatever rectangle they are") {
  std::mt19937 rng(5);
  constexpr int kHeight = 210, kWidth = 600;
  for (const PixelBox& where : {PixelBox{3, 7, 4, 208}, PixelBox{0, 0, 33, kHeight}, PixelBox{10, 5, 400, 6},
                                PixelBox{17, 63, 48, 192}, PixelBox{0, 0, kWidth, kHeight}, PixelBox{590, 146, kWidth, kHeight}}) {
    const int columns = where.x1 - where.x0, rows = where.y1 - where.y0;
    const int64_t row_words = words_of_row(columns);
    for (const unsigned one_in : {0u, 1u, 2u, 40u}) {  // none, all, half and few of the pixels
      std::vector<uint32_t> words(size_t(row_words * rows));
      std::vector<uint32_t> counts{0};
      bool set = false;
      std::vector<uint8_t> mask(size_t(kHeight) * kWidth), line(static_cast<size_t>(columns));
      for (int y = 0; y < rows; ++y) {
        for (uint8_t& pixel : line) pixel = one_in != 0 && rng() % one_in == 0;
        pack_bits(line.data(), columns, words.data() + y * row_words);
        std::copy(line.begin(), line.end(), mask.begin() + (y + where.y0) * kWidth + where.x0);
      }
      for (int x = 0; x < kWidth; ++x) {
        for (int y = 0; y < kHeight; ++y) {
          if ((mask[size_t(y * kWidth + x)] != 0) != set) set = !set, counts.push_back(0);
          ++counts.back();
        }
      }
      const Rle rle = rle_encode(words.data(), where, kHeight, kWidth);
      CAPTURE(columns);
      CAPTURE(rows);
      CAPTURE(one_in);
      CHECK(rle.counts == counts);
      CHECK(rle_from_string(rle_to_string(rle), kHeight, kWidth) == rle);
    }
  }
  CHECK(rle_encode(static_cast<const uint32_t*>(nullptr), PixelBox{}, 5, 7).counts == std::vector<uint32_t>{35});
}

TEST_CASE("rle: union and intersection over union agree with pixel loops") {
  const int h = 40, w = 33;
  std::vector<Rle> rles;
  std::vector<std::vector<uint8_t>> masks;
  for (uint32_t i = 0; i < 8; ++i) {
    masks.push_back(random_mask(h, w, i == 7 ? 0 : 0.05 * (i + 1), 77 + i));
    rles.push_back(rle_encode(masks.back().data(), h, w));
  }
  const std::vector<uint8_t> crowd{0, 1, 0, 1, 0, 0, 1, 0};
  const auto iou = rle_iou(rles, rles, crowd);
  for (size_t d = 0; d < 8; ++d) {
    for (size_t g = 0; g < 8; ++g) {
      double both = 0, either = 0, area = 0;
      for (size_t i = 0; i < masks[d].size(); ++i) {
        both += masks[d][i] & masks[g][i], either += masks[d][i] | masks[g][i], area += masks[d][i];
      }
      CHECK(iou[d * 8 + g] == (both == 0 ? 0 : both / (crowd[g] ? area : either)));
    }
  }
  std::vector<uint8_t> all(masks[0].size());
  for (size_t i = 0; i < all.size(); ++i) {
    for (const auto& m : masks) all[i] |= m[i];
  }
  CHECK(rle_union(rles) == rle_encode(all.data(), h, w));
  CHECK(rle_union({}).counts.empty());
}

TEST_CASE("rle: boxes") {
  CHECK(box_iou_ltwh({0, 0, 10, 10}, {5, 0, 10, 10}, false) == doctest::Approx(1.0 / 3));
  CHECK(box_iou_ltwh({0, 0, 10, 10}, {5, 0, 10, 10}, true) == 0.5);
  CHECK(box_iou_ltwh({0, 0, 10, 10}, {10, 0, 10, 10}, false) == 0);
}

TEST_CASE("rle: damaged masks are refused") {
  CHECK(code_of([] { rle_from_string("922000", 4, 6); }) == ErrorCode::kData);    // too few pixels
  CHECK(code_of([] { rle_from_string("922000V1", 4, 6); }) == ErrorCode::kData);  // too many pixels
  CHECK(code_of([] { rle_from_string("9220003 ", 4, 6); }) == ErrorCode::kData);  // foreign character
  CHECK(code_of([] { rle_from_string("922000S", 4, 6); }) == ErrorCode::kData);   // ends inside a number
  CHECK(code_of([] { rle_from_string("oooooooooooooooooooooo", 4, 6); }) == ErrorCode::kData);
  CHECK(code_of([] { rle_from_string("O", 4, 6); }) == ErrorCode::kData);  // -1
  CHECK(code_of([] { rle_from_string("", 4, 6); }) == ErrorCode::kData);
  CHECK(code_of([] { rle_from_string("0", 1 << 20, 1 << 20); }) == ErrorCode::kData);  // more pixels than 32 bits count
  const int64_t negative[] = {10, -2, 16}, enormous[] = {INT64_MAX, INT64_MAX};
  CHECK(code_of([&] { rle_from_counts(negative, 4, 6); }) == ErrorCode::kData);
  CHECK(code_of([&] { rle_from_counts(enormous, 4, 6); }) == ErrorCode::kData);
  const double odd[] = {1, 1, 4}, wild[] = {1, 1, 4, 1, 1e300, 3}, nan[] = {1, 1, std::nan(""), 1, 4, 3};
  CHECK(code_of([&] { rle_from_polygon(odd, 5, 6); }) == ErrorCode::kData);
  CHECK(code_of([&] { rle_from_polygon(wild, 5, 6); }) == ErrorCode::kData);
  CHECK(code_of([&] { rle_from_polygon(nan, 5, 6); }) == ErrorCode::kData);
  std::vector<Rle> unequal{{2, 3, {6}}, {3, 2, {6}}};
  CHECK(code_of([&] { rle_union(unequal); }) == ErrorCode::kData);
  std::mt19937 rng(3);
  for (int k = 0; k < 2000; ++k) {  // any text either decodes to exactly its size or is refused
    std::string text(rng() % 12, ' ');
    for (char& c : text) c = char(45 + rng() % 70);
    try {
      const Rle r = rle_from_string(text, 6, 5);
      int64_t sum = 0;
      for (uint32_t c : r.counts) sum += c;
      CHECK(sum == 30);
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::kData);
    }
  }
}
