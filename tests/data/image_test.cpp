#include "data/image.h"

#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <array>
#include <cstring>

#include "tensor/base/check.h"
#include "tensor/base/checksum.h"
#include "tests/data/support.h"

using namespace tessera;
using namespace tessera::test;
using namespace std::string_literals;

namespace {

std::vector<uint8_t> resized(const std::vector<uint8_t>& source, int h, int w, int th, int tw) {
  std::vector<uint8_t> out(size_t(th) * size_t(tw));
  resize_bilinear(source.data(), h, w, out.data(), th, tw, 1);
  return out;
}

Error error_of(const std::vector<uint8_t>& bytes) {
  try {
    decode_image(bytes, "file.jpg");
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode::kBug, "nothing was thrown");
}

// A JPEG with an EXIF block that holds the orientation.
std::vector<uint8_t> with_orientation(const std::vector<uint8_t>& jpeg, uint8_t orientation) {
  const std::vector<uint8_t> exif = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M',         0, 42, 0, 0, 0, 8,
                                     0,    1,    1, 18, 0,   3,   0,   0,   0, 1, 0,   orientation, 0, 0,  0, 0, 0, 0};
  std::vector<uint8_t> out(jpeg.begin(), jpeg.begin() + 2);
  out.insert(out.end(), exif.begin(), exif.end());
  out.insert(out.end(), jpeg.begin() + 2, jpeg.end());
  return out;
}

// Left half red, right half blue, upper quarter of it green: tells all eight orientations apart.
Image marked_image() {
  Image image(32, 64);
  for (int y = 0; y < 32; ++y)
    for (int x = 0; x < 64; ++x) {
      const std::array<uint8_t, 3> c = x >= 32  ? std::array<uint8_t, 3>{0, 0, 250}
                                       : y < 16 ? std::array<uint8_t, 3>{0, 250, 0}
                                                : std::array<uint8_t, 3>{250, 0, 0};
      std::memcpy(image.row(y) + x * 3, c.data(), 3);
    }
  return image;
}

char colour_at(const Image& image, int y, int x) {
  const uint8_t* p = image.row(y) + x * 3;
  return p[0] > 128 ? 'r' : p[1] > 128 ? 'g' : 'b';
}

}  // namespace

TEST_CASE("resize: the numbers of the specification") {
  const std::vector<uint8_t> source = {0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220};
  CHECK(resized(source, 3, 4, 5, 6) == std::vector<uint8_t>{0,   10,  23,  37,  50,  60,  32,  42,  55,  69,
                                                            82,  92,  80,  90,  103, 117, 130, 140, 128, 138,
                                                            151, 165, 178, 188, 160, 170, 183, 197, 210, 220});
  CHECK(resized(source, 3, 4, 2, 3) == std::vector<uint8_t>{23, 50, 76, 143, 170, 196});
  CHECK(resized(source, 3, 4, 3, 4) == source);
  CHECK(resized({0, 1, 2, 4}, 2, 2, 1, 1) == std::vector<uint8_t>{2});  // exact halves average with rounding
}

TEST_CASE("resize: three channels are three planes, by every kernel") {
  for (const int width : {1, 2, 3, 17, 100})
    for (const int target_width : {1, 8, 41, 150}) {
      CAPTURE(width);
      CAPTURE(target_width);
      const Image image = noise_image(13, width);
      std::array<std::vector<uint8_t>, 3> expected;
      for (size_t c = 0; c < 3; ++c) {
        std::vector<uint8_t> plane;
        for (size_t i = c; i < image.pixels.size(); i += 3) plane.push_back(image.pixels[i]);
        expected[c] = resized(plane, 13, width, 29, target_width);
      }
      const int64_t targets = hwy::SupportedTargets();
      for (int64_t left = targets; left != 0; left &= left - 1) {
        hwy::SetSupportedTargetsForTest(left & -left);
        const Image out = resize_bilinear(image, 29, target_width);
        for (size_t i = 0; i < out.pixels.size(); ++i) REQUIRE(out.pixels[i] == expected[i % 3][i / 3]);
      }
      hwy::SetSupportedTargetsForTest(0);
    }
}

TEST_CASE("PNG keeps every bit, whatever the file is called") {
  const TempFolder folder;
  const Image image = noise_image(21, 34);
  write_png(folder.path() / "image.jpg", image);
  const Image back = read_image(folder.path() / "image.jpg");
  CHECK(back.height == 21);
  CHECK(back.width == 34);
  CHECK(back.pixels == image.pixels);
}

// What OpenCV makes of the same bytes: of 16 bits the upper 8, whatever the largest value.
TEST_CASE("PNM: grey and colour, 8 and 16 bits") {
  using namespace std::string_literals;
  using Pixels = std::vector<uint8_t>;
  const auto decoded = [](const std::string& text) {
    const std::vector<uint8_t> bytes(text.begin(), text.end());
    const Image image = decode_image(bytes, "a.pnm");
    const ImageInfo info = probe_image(bytes, "a.pnm");
    CHECK((info.height == image.height && info.width == image.width && info.orientation == 1));
    return Pixels(image.pixels.begin(), image.pixels.end());
  };
  CHECK(decoded("P5 3 1 255\n\0\1\xff"s) == Pixels{0, 0, 0, 1, 1, 1, 255, 255, 255});
  CHECK(decoded("P5\n# a comment 7\n2 1#\n100\n\2\x64"s) == Pixels{2, 2, 2, 100, 100, 100});
  CHECK(decoded("P5 1 3 1023\n\0\xff\1\0\3\xff"s) == Pixels{0, 0, 0, 1, 1, 1, 3, 3, 3});
  CHECK(decoded("P5 2 1 65535 \x7f\xff\x80\0"s) == Pixels{127, 127, 127, 128, 128, 128});
  CHECK(decoded("P6 2 1 255 \1\2\3\4\5\6"s) == Pixels{1, 2, 3, 4, 5, 6});
  CHECK(decoded("P6 2 1 65535\n\1\0\2\0\3\0\4\xff\5\0\6\0"s) == Pixels{1, 2, 3, 4, 5, 6});
  for (const std::string& bad : {"P5 2 1 255\n\1"s, "P5 2 1 65535\n\1\2\3"s, "P6 1 1 255\n\1\2"s, "P5 2 x 255\n\1\2"s, "P5 2 1"s, "P5 2 1 255"s,
                                 "P5 2 1 65536\n\1\2\3\4"s, "P5 2 1 0\n\1\2"s, "P5 0 1 255\n\1"s, "P5 -2 1 255\n\1\2"s,
                                 "P5 2000000000 1 255\n\1"s}) {
    CAPTURE(bad);
    const Error e = error_of({bad.begin(), bad.end()});
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == "file.jpg");
  }
}

TEST_CASE("JPEG: colours, sizes, header") {
  const std::vector<uint8_t> jpeg = encode_jpeg(marked_image(), 95);
  const Image back = decode_image(jpeg, "a.jpg");
  CHECK(colour_at(back, 8, 8) == 'g');
  CHECK(colour_at(back, 28, 8) == 'r');
  CHECK(colour_at(back, 8, 50) == 'b');
  const ImageInfo info = probe_image(jpeg, "a.jpg");
  CHECK(info.format == ImageFormat::kJpeg);
  CHECK(info.height == 32);
  CHECK(info.width == 64);
  CHECK(info.orientation == 1);
}

TEST_CASE("EXIF orientation 1 to 8 is applied and swaps the sides from 5 on") {
  // Corners of the upright image: top left, top right, bottom left, bottom right; stored: g b / r b.
  const std::array<std::string, 8> expected = {"gbrb", "bgbr", "brbg", "rbgb", "grbb", "rgbb", "bbrg", "bbgr"};
  const std::vector<uint8_t> plain = encode_jpeg(marked_image(), 95);
  for (uint8_t o = 1; o <= 8; ++o) {
    CAPTURE(int(o));
    const std::vector<uint8_t> jpeg = with_orientation(plain, o);
    const ImageInfo info = probe_image(jpeg, "a.jpg");
    const Image image = decode_image(jpeg, "a.jpg");
    CHECK(info.orientation == o);
    CHECK(info.height == image.height);
    CHECK(info.width == image.width);
    CHECK(image.height == (o >= 5 ? 64 : 32));
    const int y = image.height - 6, x = image.width - 6;
    CHECK(std::string{colour_at(image, 5, 5), colour_at(image, 5, x), colour_at(image, y, 5), colour_at(image, y, x)} ==
          expected[size_t(o - 1)]);
  }
}

TEST_CASE("an orientation of another type than 16 bits counts, as in OpenCV") {
  for (const uint8_t type : {1, 3, 4}) {
    const std::vector<uint8_t> tiff = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 18, 1, type, 0, 1, 0, 0, 0, 6, 0, 0, 0};
    CHECK(exif_orientation(tiff) == 6);
  }
}

TEST_CASE("a BMP may have its rows from the top") {
  const auto bmp = [](uint8_t height, uint8_t fill, const std::string& rows) {
    const std::string bytes = "BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\2\0\0\0"s + char(height) + std::string(3, char(fill)) +
                              "\1\0\x18\0"s + std::string(24, '\0') + rows;
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
  };
  const std::string a = "\1\2\3\4\5\6\0\0"s, b = "\7\x8\x9\xA\xB\xC\0\0"s;
  const std::vector<uint8_t> up = bmp(2, 0, b + a), down = bmp(0xFE, 0xFF, a + b);
  CHECK(probe_image(down, "a.bmp").height == 2);
  const Image image = decode_image(down, "a.bmp");
  CHECK(image.height == 2);
  CHECK(image.pixels == decode_image(up, "a.bmp").pixels);
  CHECK(image.pixels == PixelBuffer{3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10});
}

TEST_CASE("a colour beyond a PNG's palette is black") {
  const auto u32 = [](uint32_t v) { return std::string{char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; };
  const auto chunk = [&](const std::string& named) {
    return u32(uint32_t(named.size() - 4)) + named + u32(crc32(std::as_bytes(std::span(named))));
  };
  // One row of two pixels: colours 1 and 200 of a palette of two; deflate's stored form.
  const std::string bytes = "\x89PNG\r\n\x1A\n" + chunk("IHDR\0\0\0\2\0\0\0\1\x08\3\0\0\0"s) + chunk("PLTE\1\2\3\4\5\6"s) +
                            chunk("IDAT\x78\1\1\3\0\xFC\xFF\0\1\xC8\1\x93\0\xCA"s) + chunk("IEND"s);
  const Image image = decode_image({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "a.png");
  CHECK(image.pixels == PixelBuffer{4, 5, 6, 0, 0, 0});
}

TEST_CASE("a damaged EXIF block is passed over") {
  CHECK(exif_orientation({}) == 1);
  const std::vector<uint8_t> endless = {'I', 'I', 42, 0, 8, 0, 0, 0, 0xFF, 0xFF, 1, 2};
  CHECK(exif_orientation(endless) == 1);
  const std::vector<uint8_t> far = {'M', 'M', 0, 42, 0xFF, 0xFF, 0xFF, 0xF0};
  CHECK(exif_orientation(far) == 1);
}

TEST_CASE("cut and damaged files are errors that name the file") {
  const Image image = noise_image(64, 64);
  const std::vector<uint8_t> jpeg = encode_jpeg(image, 90), png = encode_png(image);
  for (const double share : {0.02, 0.3, 0.7, 0.98}) {
    const Error e = error_of({jpeg.begin(), jpeg.begin() + std::ptrdiff_t(double(jpeg.size()) * share)});
    CHECK(e.code() == ErrorCode::kData);
    CHECK(e.where().file == "file.jpg");
    CHECK(error_of({png.begin(), png.begin() + std::ptrdiff_t(double(png.size()) * share)}).code() == ErrorCode::kData);
  }
  CHECK(error_of({jpeg.begin(), jpeg.end() - 2}).code() == ErrorCode::kData);  // without its end mark
  CHECK(error_of({}).message().find("empty") != std::string::npos);
  CHECK(error_of({'h', 'e', 'l', 'l', 'o', ' ', 'w', 'o', 'r', 'l', 'd'}).code() == ErrorCode::kData);
  CHECK(error_of({'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P'}).message().find("WebP") != std::string::npos);
}

TEST_CASE("bytes after the end mark of a JPEG do no harm") {
  std::vector<uint8_t> jpeg = encode_jpeg(noise_image(16, 16), 90);
  const Image image = decode_image(jpeg, "a.jpg");
  jpeg.insert(jpeg.end(), 100, 0);
  CHECK(decode_image(jpeg, "a.jpg").pixels == image.pixels);
}

TEST_CASE("a progressive JPEG has so many scans and no more") {
  // Eight by eight grey pixels: tables of one code each, of nothing; a scan of means, then as many of everything else as are asked
  // for.
  const auto jpeg = [](int scans) {
    const auto table = [](char kind) { return "\xFF\xC4\0\x14"s + kind + "\1" + std::string(16, '\0'); };
    std::string bytes = "\xFF\xD8\xFF\xDB\0\x43\0"s + std::string(64, '\1') + "\xFF\xC2\0\x0B\x08\0\x08\0\x08\1\1\x11\0"s +
                        table('\0') + table('\x10') + "\xFF\xDA\0\x08\1\1\0\0\0\0\x7F"s;
    for (int i = 1; i < scans; ++i) bytes += "\xFF\xDA\0\x08\1\1\0\1\x3F\0\x7F"s;
    bytes += "\xFF\xD9";
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
  };
  for (const int scans : {2, 100}) CHECK(decode_image(jpeg(scans), "a.jpg").pixels == PixelBuffer(8 * 8 * 3, 128));
  CHECK(error_of(jpeg(101)).message() == "the JPEG file is damaged (it has more than 100 scans)");
}

TEST_CASE("sizes are limited before memory is taken") {
  // A PNG header that promises 60000 x 60000 pixels.
  std::vector<uint8_t> png = encode_png(noise_image(16, 16));
  png[18] = png[22] = 0xEA, png[19] = png[23] = 0x60;
  const Error e = error_of(png);
  CHECK(e.code() == ErrorCode::kData);
  CHECK(e.message().find("60000") != std::string::npos);
}
