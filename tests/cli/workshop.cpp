#include "tests/cli/workshop.h"

#include <cstdio>
#include <cstdlib>
#include <memory>

// clang-format off: jpeglib.h wants FILE from above
#include <jpeglib.h>
// clang-format on

#include "tests/support/narrow_model.h"

namespace tessera::test {

namespace {

std::string big_endian(uint32_t v) { return {char(v >> 24), char(v >> 16 & 255), char(v >> 8 & 255), char(v & 255)}; }

std::string chunk(const std::string& kind, const std::string& data) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : kind + data) {
    crc ^= uint8_t(c);
    for (int k = 0; k < 8; ++k) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
  }
  return big_endian(uint32_t(data.size())) + kind + data + big_endian(~crc);
}

// zlib without compression: blocks of stored bytes.
std::string stored(const std::string& data) {
  std::string out = "\x78\x01";
  for (size_t at = 0; at < data.size(); at += 65535) {
    const size_t n = std::min<size_t>(65535, data.size() - at);
    out += at + n == data.size() ? '\1' : '\0';
    for (const size_t v : {n, ~n}) out += {char(v & 255), char(v >> 8 & 255)};
    out += data.substr(at, n);
  }
  uint32_t a = 1, b = 0;
  for (const char c : data) {
    a = (a + uint8_t(c)) % 65521;
    b = (b + a) % 65521;
  }
  return out + big_endian(b << 16 | a);
}

Image gradient_image(int height, int width) {
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      uint8_t* p = image.row(y) + 3 * x;
      p[0] = uint8_t(5 * x), p[1] = uint8_t(5 * y), p[2] = uint8_t(3 * (x + y));
    }
  }
  return image;
}

}  // namespace

std::string raw_png(int height, int width, int bits, int claim_height, int claim_width) {
  std::string rows;
  for (int y = 0; y < height; ++y) rows += '\0' + std::string(size_t(width) * size_t(bits) / 8, '\x55');
  const std::string header = big_endian(uint32_t(claim_width > 0 ? claim_width : width)) +
                             big_endian(uint32_t(claim_height > 0 ? claim_height : height)) + char(bits) + std::string(4, '\0');
  return "\x89PNG\r\n\x1A\n" + chunk("IHDR", header) + chunk("IDAT", stored(rows)) + chunk("IEND", "");
}

std::string image_png(int height, int width) { return text_of(encode_png(gradient_image(height, width))); }
std::string image_jpeg(int height, int width) { return text_of(encode_jpeg(gradient_image(height, width), 90)); }

std::string cmyk_jpeg(int height, int width) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_height = JDIMENSION(height);
  info.image_width = JDIMENSION(width);
  info.input_components = 4;
  info.in_color_space = JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(size_t(width) * 4, 90);
  for (int y = 0; y < height; ++y) {
    JSAMPROW rows[] = {row.data()};
    jpeg_write_scanlines(&info, rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const std::unique_ptr<unsigned char, void (*)(void*)> owner(buffer, std::free);
  return {reinterpret_cast<const char*>(buffer), size};
}

std::string turned(const std::string& jpeg) {
  const std::string exif =
      std::string("Exif\0\0MM\0\x2A\0\0\0\x08", 14) + std::string("\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", 18);
  return jpeg.substr(0, 2) + "\xFF\xE1" + char(0) + char(exif.size() + 2) + exif + jpeg.substr(2);
}

std::string enormous(const std::string& jpeg) {
  std::string out = jpeg;
  const size_t frame = out.find("\xFF\xC0");
  REQUIRE(frame != std::string::npos);
  out.replace(frame + 5, 4, "\xEA\x60\xEA\x60");  // height, width
  return out;
}

Workshop::Workshop() {
  for (int i = 0; i < 6; ++i) sample(fmt::format("t{}.png", i), image_png(48, 40), std::string(kGoodRow) + "\n");
  for (int i = 0; i < 2; ++i) sample(fmt::format("v{}.png", i), image_png(48, 40), "1 0.1 0.1 0.9 0.1 0.5 0.8\n", "val");
  write("data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n");
  write("yolov8n-seg.yaml", testing::kNarrowModel);
}

void Workshop::sample(std::string_view name, std::string_view image, std::string_view labels, std::string_view split) const {
  write(fmt::format("images/{}/{}", split, name), image);
  write(fmt::format("labels/{}/{}.txt", split, fs::path(name).stem().string()), labels);
}

Arguments Workshop::train(std::string_view name, const Arguments& more) const {
  Arguments all = {"train",
                   "--data",
                   *this / "data.yaml",
                   "--model",
                   *this / "yolov8n-seg.yaml",
                   "--epochs",
                   "1",
                   "--imgsz",
                   "32",
                   "--batch",
                   "2",
                   "--plots",
                   "false",
                   "--workers",
                   "1",
                   "--project",
                   *this / "runs",
                   "--name",
                   std::string(name)};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

const std::string& Workshop::trained() {
  static const Workshop workshop;
  static const std::string weights = [] {
    const Outcome outcome = run(workshop.train("once"), workshop.here());
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return workshop / "runs/once/weights/best.safetensors";
  }();
  return weights;
}

}  // namespace tessera::test
