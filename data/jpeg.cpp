// JPEG through libjpeg-turbo.
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

// clang-format off: these two want FILE from above
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "data/image.h"
#include "tensor/base/check.h"

namespace tessera::detail {

namespace {

// libjpeg reports errors by leaving through longjmp; no C++ object with a destructor may live between setjmp and there.
struct ErrorHandler {
  jpeg_error_mgr base;
  std::jmp_buf escape;
  char text[JMSG_LENGTH_MAX];
};

void leave(j_common_ptr info) {
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  handler->base.format_message(info, handler->text);
  std::longjmp(handler->escape, 1);
}

// libjpeg goes on with grey pixels where data is missing or garbled; such an image is refused here. Other warnings (bytes between
// segments, odd Adobe codes) leave the pixels intact and are passed over.
void on_message(j_common_ptr info, int level) {
  const int code = info->err->msg_code;
  if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC))
    leave(info);
}

// A scan of a progressive JPEG may pass over all of the image in a few bytes, and nothing limits how many there are: a small file
// would be worked on for minutes. Encoders write about ten.
constexpr int kMaxScans = 100;

void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  handler->base.msg_code = 0;
  std::snprintf(handler->text, sizeof handler->text, "it has more than %d scans", kMaxScans);
  std::longjmp(handler->escape, 1);
}

struct Decoder {
  jpeg_decompress_struct info{};
  ErrorHandler handler{};
  jpeg_progress_mgr progress{};

  Decoder() {
    info.err = jpeg_std_error(&handler.base);
    handler.base.error_exit = leave;
    handler.base.emit_message = on_message;
    progress.progress_monitor = on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  [[noreturn]] void fail(const std::string& name) const {
    const int code = handler.base.msg_code;
    if (code == JERR_OUT_OF_MEMORY) throw std::bad_alloc();
    const bool cut = code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JERR_INPUT_EOF;
    throw Error(ErrorCode::kData,
                fmt::format("{} ({})", cut ? "the JPEG file is cut short" : "the JPEG file is damaged", handler.text), {name},
                "replace or remove the file");
  }

  int orientation() const {
    constexpr char kExif[] = "Exif\0";  // six bytes with the closing zero
    for (const jpeg_marker_struct* m = info.marker_list; m != nullptr; m = m->next)
      if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && std::memcmp(m->data, kExif, 6) == 0)
        return exif_orientation({m->data + 6, m->data_length - 6});
    return 1;
  }
};

bool read_header(Decoder& d, std::span<const uint8_t> bytes) {
  if (setjmp(d.handler.escape)) return false;
  jpeg_create_decompress(&d.info);
  d.info.progress = &d.progress;
  jpeg_mem_src(&d.info, bytes.data(), static_cast<unsigned long>(bytes.size()));
  jpeg_save_markers(&d.info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&d.info, TRUE);
  return true;
}

bool read_pixels(Decoder& d, uint8_t* out, size_t pitch) {
  if (setjmp(d.handler.escape)) return false;
  jpeg_start_decompress(&d.info);
  while (d.info.output_scanline < d.info.output_height) {
    JSAMPROW rows[4];
    const JDIMENSION left = d.info.output_height - d.info.output_scanline;
    const JDIMENSION n = left < 4 ? left : 4;
    for (JDIMENSION i = 0; i < n; ++i) rows[i] = out + (d.info.output_scanline + i) * pitch;
    jpeg_read_scanlines(&d.info, rows, n);
  }
  jpeg_finish_decompress(&d.info);
  return true;
}

// Adobe writes CMYK inverted (255 = no ink); plain CMYK is turned into that first. R = K - (255 - C) K / 256 as OpenCV does.
void cmyk_to_rgb(const PixelBuffer& cmyk, bool inverted, PixelBuffer& rgb) {
  const size_t pixels = cmyk.size() / 4;
  for (size_t i = 0; i < pixels; ++i) {
    const int flip = inverted ? 0 : 255;
    const int k = cmyk[4 * i + 3] ^ flip;
    for (size_t c = 0; c < 3; ++c) rgb[3 * i + c] = uint8_t(k - (((255 - (cmyk[4 * i + c] ^ flip)) * k) >> 8));
  }
}

}  // namespace

ImageInfo probe_jpeg(std::span<const uint8_t> bytes, const std::string& name) {
  Decoder d;
  if (!read_header(d, bytes)) d.fail(name);
  check_image_size(d.info.image_height, d.info.image_width, name);
  return {ImageFormat::kJpeg, int(d.info.image_height), int(d.info.image_width), d.orientation(), 8};
}

Image decode_jpeg(std::span<const uint8_t> bytes, const std::string& name) {
  Decoder d;
  if (!read_header(d, bytes)) d.fail(name);
  check_image_size(d.info.image_height, d.info.image_width, name);
  const bool four = d.info.jpeg_color_space == JCS_CMYK || d.info.jpeg_color_space == JCS_YCCK;
  d.info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  const int orientation = d.orientation();  // libjpeg drops the markers with the last line
  Image image(int(d.info.image_height), int(d.info.image_width));
  PixelBuffer cmyk;
  if (four) cmyk.resize(image.pixels.size() / 3 * 4);
  if (!read_pixels(d, four ? cmyk.data() : image.pixels.data(), size_t(image.width) * (four ? 4 : 3))) d.fail(name);
  if (four) cmyk_to_rgb(cmyk, d.info.saw_Adobe_marker != 0, image.pixels);
  return apply_orientation(std::move(image), orientation);
}

}  // namespace tessera::detail

namespace tessera {

namespace {

struct Encoder {
  jpeg_compress_struct info{};
  detail::ErrorHandler handler{};
  unsigned char* buffer = nullptr;
  unsigned long size = 0;

  Encoder() {
    info.err = jpeg_std_error(&handler.base);
    handler.base.error_exit = detail::leave;
  }
  ~Encoder() {
    jpeg_destroy_compress(&info);
    std::free(buffer);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

bool encode(Encoder& e, const Image& image, int quality, Chroma chroma) {
  if (setjmp(e.handler.escape)) return false;
  jpeg_create_compress(&e.info);
  jpeg_mem_dest(&e.info, &e.buffer, &e.size);
  e.info.image_width = JDIMENSION(image.width);
  e.info.image_height = JDIMENSION(image.height);
  e.info.input_components = 3;
  e.info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&e.info);
  jpeg_set_quality(&e.info, quality, TRUE);
  if (chroma == Chroma::kFull) e.info.comp_info[0].h_samp_factor = e.info.comp_info[0].v_samp_factor = 1;
  jpeg_start_compress(&e.info, TRUE);
  while (e.info.next_scanline < e.info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(image.row(int(e.info.next_scanline)));
    jpeg_write_scanlines(&e.info, &row, 1);
  }
  jpeg_finish_compress(&e.info);
  return true;
}

}  // namespace

std::vector<uint8_t> encode_jpeg(const Image& image, int quality, Chroma chroma) {
  TESSERA_CHECK(!image.empty() && quality >= 1 && quality <= 100, "encode_jpeg: {}x{}, quality {}", image.height, image.width,
                quality);
  Encoder e;
  if (!encode(e, image, quality, chroma)) throw Error(ErrorCode::kData, fmt::format("JPEG encoding failed ({})", e.handler.text));
  return {e.buffer, e.buffer + e.size};
}

}  // namespace tessera
