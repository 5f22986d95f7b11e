// A few thousand damaged images, label files and data yamls: each is taken or refused with its name and a remedy.
#include "tests/support/damage.h"

#include "data/dataset_yaml.h"
#include "data/image.h"
#include "data/yolo_txt.h"
#include "tests/data/support.h"

using namespace tessera;
using namespace tessera::test;
using namespace std::string_literals;
using testing::Damage;
using testing::takes_or_refuses;
using testing::Verdicts;

namespace {

std::string bmp(int side) {
  std::string rows(size_t(side * ((side * 3 + 3) / 4 * 4)), '\x40');
  const auto u32 = [](uint32_t v) { return std::string{char(v), char(v >> 8), char(v >> 16), char(v >> 24)}; };
  return "BM" + u32(54 + uint32_t(rows.size())) + u32(0) + u32(54) + u32(40) + u32(uint32_t(side)) + u32(uint32_t(side)) + "\1\0\x18\0"s +
         u32(0) + u32(uint32_t(rows.size())) + u32(0) + u32(0) + u32(0) + u32(0) + rows;
}

struct EncodedImage {
  const char* name;
  std::string bytes;
};

std::vector<EncodedImage> encoded_images() {
  const Image image = noise_image(13, 17);
  return {
      {"a.jpg", std::string(text_of(encode_jpeg(image, 80)))},
      {"a.png", std::string(text_of(encode_png(image)))},
      {"a.bmp", bmp(9)},
      {"a.gif", "GIF89a\2\0\2\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\4\1\0\0\0\0,\0\0\0\0\2\0\2\0\0\2\3\x44\x52\5\0;"s},
      {"a.ppm", "P6\n# by hand\n5 4\n255\n" + std::string(60, '\x50')},
      {"a.pgm", "P5 5 4 65535\n" + std::string(40, '\x50')},
      {"a.psd", "8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\4\0\0\0\5\0\x08\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s + std::string(60, '\x30')},
      {"b.psd", "8BPS\0\1\0\0\0\0\0\0\0\3\0\0\0\1\0\0\0\4\0\x08\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\1"s + "\0\2\0\2\0\2"s +
                    "\xfd\x22\xfd\x33\xfd\x44"s},
      {"a.hdr", "#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n" + std::string(48, '\x60')},
      {"b.hdr", "#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 8\n\2\2\0\x08\x88\x40\x08"s + "abcdefgh\x84\x40\x04zyxw\x88\x81" +
                    "\2\2\0\x08\x88\x40\x88\x41\x88\x42\x88\x82"s},  // runs and bytes as they are
  };
}

}  // namespace

TEST_CASE("damage: images are decoded or refused by name") {
  for (const EncodedImage& p : encoded_images()) {
    CAPTURE(p.name);
    const auto decode = [&](const std::string& bytes) {
      const std::span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      const Image image = decode_image(span, p.name);
      CHECK(image.pixels.size() == size_t(image.height) * size_t(image.width) * 3);
    };
    CHECK_NOTHROW(decode(p.bytes));
    Damage damage(1, {"\xFF\xD9", "\xFF\xDA", "\xFF\xC2", "\xFF\xE1\0\x08"s, "IDAT", "tRNS", "PLTE", "eXIf", "\0\0\0\0"s, "\xFF\xFF\xFF\x7F"s});
    Verdicts verdicts;
    for (int round = 0; round < 1500; ++round) {
      CAPTURE(round);
      const std::string bytes = damage(p.bytes);
      takes_or_refuses(p.name, [&] { decode(bytes); }, verdicts);
      takes_or_refuses(
          p.name, [&] { probe_image({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, p.name); }, verdicts);
    }
    CHECK(verdicts.taken > 100);
    CHECK(verdicts.refused > 100);
  }
}

TEST_CASE("damage: every cut of an image is refused by name, or leaves it whole") {
  for (const EncodedImage& p : encoded_images()) {
    CAPTURE(p.name);
    Verdicts verdicts;
    for (size_t length = 0; length < p.bytes.size(); ++length) {
      takes_or_refuses(
          p.name,
          [&] { decode_image({reinterpret_cast<const uint8_t*>(p.bytes.data()), length}, p.name); }, verdicts);
    }
    CHECK(verdicts.refused > 20);
    const std::string_view name = p.name;
    // What may be missing: of a PNG the checksum of its end, of a GIF the mark of it, of a BMP the padding of its last row.
    const int spare = name.ends_with(".png") ? 4 : name.ends_with(".gif") || name.ends_with(".bmp") ? 1 : 0;
    if (!name.ends_with(".jpg")) CHECK(verdicts.taken == spare);
  }
}

TEST_CASE("damage: no flipped bit of a PNG's pixels, palette or header goes unseen") {
  std::string png(text_of(encode_png(noise_image(13, 17))));
  const size_t end = png.find("IEND") - 4;
  for (size_t bit = 0; bit < 8 * end; ++bit) {
    CAPTURE(bit);
    png[bit / 8] = char(png[bit / 8] ^ 1 << bit % 8);
    CHECK_THROWS_AS(decode_image({reinterpret_cast<const uint8_t*>(png.data()), png.size()}, "a.png"), Error);
    png[bit / 8] = char(png[bit / 8] ^ 1 << bit % 8);
  }
}

TEST_CASE("damage: a small file does not unpack to gigabytes") {
  // Deflate by hand, with the fixed codes: a zero, then the longest repeat of it (13 bits for 258 bytes) again and again.
  std::string packed = "\x78\x01"s;
  int used = 8;
  const auto bits = [&](std::string_view list) {
    for (const char bit : list) {
      if (used == 8) packed += '\0', used = 0;
      packed.back() = char(packed.back() | (bit - '0') << used++);
    }
  };
  bits("11000110000");
  for (int i = 0; i < 40'000; ++i) bits("1100010100000");
  const auto u32 = [](uint32_t v) { return std::string{char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; };
  const std::string one(text_of(encode_png(Image(1, 1))));
  const std::string bytes = one.substr(0, one.find("IDAT") - 4) + u32(uint32_t(packed.size())) + "IDAT" + packed + u32(0) +
                            one.substr(one.find("IEND") - 4);
  const std::span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  Verdicts verdicts;
  try {
    decode_image(span, "bomb.png");
    FAIL_CHECK("it was taken");
  } catch (const Error& e) {
    CHECK(e.message() == "the image file unpacks to far more than its size in pixels");
  }
  for (const std::string& header : {"P6 99999999999 4 255\n"s, "P6\n# 1234567890123\n5 4 99999999999\n"s}) {
    const std::string pnm = header + "x";
    takes_or_refuses(
        "a.ppm", [&] { probe_image({reinterpret_cast<const uint8_t*>(pnm.data()), pnm.size()}, "a.ppm"); }, verdicts);
  }
  CHECK(verdicts.refused == 2);
}

TEST_CASE("damage: label files lose rows, or are refused by name") {
  const std::string good =
      "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n1 0.25 0.3 0.5 0.3 0.5 0.75\n\n0 .5 .5 .75 .5 .625 1.0\n2 0.5 0.5 1e-1 0.25 0.75 0.875\n";
  Damage damage(2, {" ", "\n", "\t", ",", "-0.001", "1.0001", "+0.5", "1.0 0.5", "nan", "\r"});
  Verdicts strict, lenient, original;
  for (int round = 0; round < 6000; ++round) {
    CAPTURE(round);
    const std::string text = damage(good);
    const auto check = [&](LabelPolicy policy) {
      const LabelFile labels = parse_labels(text, "labels.txt", 3, policy);
      for (const LabelObject& o : labels.objects) {
        CHECK((o.class_id >= 0 && o.class_id < 3));
        if (policy == LabelPolicy::kOriginal) continue;
        for (const Point& p : o.polygon) CHECK((p.x >= 0 && p.x <= 1 && p.y >= 0 && p.y <= 1));
      }
    };
    takes_or_refuses("labels.txt", [&] { check(LabelPolicy::kLenient); }, lenient);
    takes_or_refuses("labels.txt", [&] { check(LabelPolicy::kStrict); }, strict);
    takes_or_refuses("labels.txt", [&] { check(LabelPolicy::kOriginal); }, original);
  }
  CHECK(lenient.refused == 0);
  CHECK(strict.refused > 1000);
  CHECK(original.refused == 0);
}

TEST_CASE("damage: data yamls are read or refused by name") {
  const TempFolder folder;
  folder.write("images/train/a.png", "");
  folder.write("images/val/a.png", "");
  const std::string good =
      "# images\npath: .\ntrain: images/train\nval: [images/val]\ntest:\nnc: 3\nnames:\n  0: cat\n  1: 'dog'\n  2: \"a: b\"\n"
      "channels: 3\ndownload: |\n  import os\n";
  Damage damage(3, {"&a ", "*a", "!!int ", "? ", "<<: ", "---\n", "...\n", "- ", "names: [x]\n", "train: /\n", "%YAML 1.2\n", "~", "{}", "!"});
  Verdicts verdicts;
  for (int round = 0; round < 4000; ++round) {
    CAPTURE(round);
    const std::string file = folder.write("data.yaml", damage(good)).string();
    takes_or_refuses(
        file,
        [&] {
          const DatasetYaml yaml = load_dataset_yaml(file, {}, {});
          CHECK(!yaml.names.empty());
        },
        verdicts);
  }
  CHECK(verdicts.taken > 500);
  CHECK(verdicts.refused > 500);
}
