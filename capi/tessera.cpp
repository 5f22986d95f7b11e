// The functions of tessera.h over the predictor. Each is one guarded call: what is thrown becomes a status and a text of the
// thread.
#include "capi/tessera.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "tensor/base/parallel.h"
#include "tensor/conv_choice.h"
#include "tensor/cpu/install.h"
#include "yolo/eval/predictor.h"
#include "yolo/io/onnx_network.h"
#include "yolo/io/weights.h"

using namespace tessera;

namespace {
using Names = std::shared_ptr<const std::vector<std::string>>;
}

struct tessera_model {
  std::mutex mutex;                      // held by the call that runs the network
  std::unique_ptr<YoloSeg> weights;      // folded for good; or
  std::unique_ptr<OnnxNetwork> network;  // an .onnx file
  Names names;
};

struct tessera_result {
  Prediction prediction;
  Names names;  // outlive the model
};

namespace {

thread_local std::string last_error;

tessera_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage: return TESSERA_ERROR_USAGE;
    case ErrorCode::kData: return TESSERA_ERROR_DATA;
    case ErrorCode::kMemory: return TESSERA_ERROR_MEMORY;
    case ErrorCode::kIo: return TESSERA_ERROR_IO;
    case ErrorCode::kBug:
    case ErrorCode::kNonFinite:
    case ErrorCode::kInterrupted: break;
  }
  return TESSERA_ERROR_BUG;
}

tessera_status fail(tessera_status status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

template <class F>
tessera_status guarded(F&& f) noexcept {
  try {
    f();
    return TESSERA_OK;
  } catch (const Error& e) {
    return fail(status_of(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return fail(TESSERA_ERROR_MEMORY, "not enough memory");
  } catch (const std::exception& e) {
    return fail(TESSERA_ERROR_BUG, e.what());
  } catch (...) {
    return fail(TESSERA_ERROR_BUG, "an exception of unknown type");
  }
}

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::kUsage, std::move(message), {}, std::move(hint));
}

template <class T>
T& given(T* pointer, const char* name) {
  if (pointer == nullptr) refuse(fmt::format("{} is NULL", name));
  return *pointer;
}

void initialize_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    install_cpu_backends();
    conv_choice();  // reads its switch when it is first asked, which must not be by two threads
  });
}

// With the defaults where the caller's struct ends.
tessera_options complete(const tessera_options* options) {
  tessera_options out;
  tessera_options_init(&out, sizeof out);
  if (options == nullptr) return out;
  if (options->size <= sizeof options->size) {
    refuse(fmt::format("tessera_options::size is {}", options->size),
           "set the struct by tessera_options_init(&options, sizeof options)");
  }
  const size_t known = std::min(options->size, sizeof out);
  std::memcpy(&out, options, known);
  return out;
}

PredictorOptions predictor_options(const tessera_options& given_options, const tessera_model& model) {
  PredictorOptions o;
  o.confidence = given_options.conf;
  o.iou = given_options.iou;
  if (given_options.max_det < 1) refuse(fmt::format("max_det={} is not positive", given_options.max_det));
  o.max_detections = given_options.max_det;
  if (model.network) {
    o.imgsz = int(model.network->imgsz(given_options.imgsz));
    o.fixed = model.network->fixed_size();
  } else if (given_options.imgsz != 0) {
    o.imgsz = given_options.imgsz;
  }
  o.agnostic = given_options.agnostic_nms != 0;
  o.retina_masks = given_options.retina_masks != 0;
  if (given_options.classes != nullptr) {
    if (given_options.class_count == 0) refuse("class_count is 0", "leave classes NULL for all");
    o.classes.assign(given_options.classes, given_options.classes + given_options.class_count);
  }
  return o;
}

Image image_of(const uint8_t* pixels, int32_t height, int32_t width, ptrdiff_t stride, tessera_format format) {
  given(pixels, "pixels");
  if (height < 1 || width < 1 || height > kMaxImageSide || width > kMaxImageSide || int64_t(height) * width > kMaxImagePixels) {
    refuse(fmt::format("an image of {} x {} pixels", height, width),
           fmt::format("height and width are 1 to {}, and their product at most {}", kMaxImageSide, kMaxImagePixels));
  }
  const int64_t row = int64_t(width) * 3, most = std::numeric_limits<ptrdiff_t>::max() / height;  // within which the last row lies
  if ((stride > -row && stride < row) || stride < -most || stride > most) {
    refuse(fmt::format("stride={} for rows of {} bytes", stride, row));
  }
  if (format != TESSERA_RGB && format != TESSERA_BGR)
    refuse(fmt::format("format={} is neither TESSERA_RGB nor TESSERA_BGR", int(format)));
  Image image(height, width);
  for (int y = 0; y < height; ++y) {
    const uint8_t* from = pixels + y * stride;
    uint8_t* to = image.row(y);
    std::memcpy(to, from, size_t(width) * 3);
    if (format == TESSERA_RGB) continue;
    for (int x = 0; x < width; ++x) std::swap(to[3 * x], to[3 * x + 2]);
  }
  return image;
}

const ObjectPrediction& object_of(const tessera_result* result, size_t index) {
  const auto& objects = given(result, "result").prediction.objects;
  if (index >= objects.size()) refuse(fmt::format("object {} of {}", index, objects.size()));
  return objects[index];
}

}  // namespace

const char* tessera_version(void) { return TESSERA_VERSION; }

const char* tessera_last_error(void) { return last_error.c_str(); }

tessera_status tessera_set_threads(int32_t threads) {
  return guarded([&] { set_compute_threads(threads); });
}

tessera_status tessera_model_load(const char* path, tessera_model** model) {
  return guarded([&] {
    given(model, "model");
    const std::string file = &given(path, "path");
    initialize_once();
    auto opened = std::make_unique<tessera_model>();
    if (file.ends_with(".onnx")) {
      opened->network = std::make_unique<OnnxNetwork>(file);
      opened->names = std::make_shared<const std::vector<std::string>>(opened->network->names());
    } else {
      LoadedModel loaded = load_model(file);
      if (!loaded.pretrained) {
        refuse(fmt::format("'{}' has no weights", file),
               "give a .safetensors file of a run, a .pt of the original or an .onnx of either");
      }
      loaded.model->fold_for_good();
      opened->weights = std::move(loaded.model);
      opened->names = std::make_shared<const std::vector<std::string>>(std::move(loaded.names));
    }
    *model = opened.release();
  });
}

void tessera_model_free(tessera_model* model) { delete model; }

int32_t tessera_model_classes(const tessera_model* model) { return model == nullptr ? 0 : int32_t(model->names->size()); }

const char* tessera_model_class_name(const tessera_model* model, int32_t class_id) {
  if (class_id < 0 || class_id >= tessera_model_classes(model)) return nullptr;
  return (*model->names)[size_t(class_id)].c_str();
}

void tessera_options_init(tessera_options* options, size_t size) {
  if (options == nullptr) return;
  const PredictorOptions defaults;
  tessera_options all{};
  all.size = size;
  all.conf = defaults.confidence;
  all.iou = defaults.iou;
  all.max_det = int32_t(defaults.max_detections);
  std::memset(options, 0, size);
  std::memcpy(options, &all, std::min(size, sizeof all));
}

tessera_status tessera_predict(tessera_model* model, const uint8_t* pixels, int32_t height, int32_t width, ptrdiff_t stride,
                               tessera_format format, const tessera_options* options, tessera_result** result) {
  return guarded([&] {
    given(result, "result");
    const PredictorOptions predict = predictor_options(complete(options), given(model, "model"));
    const Image image = image_of(pixels, height, width, stride, format);
    auto found = std::make_unique<tessera_result>();
    found->names = model->names;
    {
      const std::lock_guard lock(model->mutex);
      const auto predictor = model->network ? std::make_unique<Predictor>(*model->network, *model->names, predict)
                                            : std::make_unique<Predictor>(*model->weights, *model->names, predict);
      found->prediction = predictor->run(image);
    }
    *result = found.release();
  });
}

void tessera_result_free(tessera_result* result) { delete result; }

size_t tessera_result_count(const tessera_result* result) { return result == nullptr ? 0 : result->prediction.objects.size(); }

tessera_status tessera_result_object(const tessera_result* result, size_t index, tessera_object* object) {
  return guarded([&] {
    const ObjectPrediction& o = object_of(result, index);
    given(object, "object") = {
        o.class_id,    o.confidence, o.box.x1, o.box.y1, o.box.x2, o.box.y2, (*result->names)[size_t(o.class_id)].c_str(),
        o.rings.size()};
  });
}

tessera_status tessera_result_mask(const tessera_result* result, size_t index, uint8_t* mask, size_t stride) {
  return guarded([&] {
    const MaskPatch& patch = object_of(result, index).mask;
    given(mask, "mask");
    if (stride < size_t(patch.width)) refuse(fmt::format("stride={} for rows of {} bytes", stride, patch.width));
    patch.view().paint(mask, int64_t(stride));
  });
}

tessera_status tessera_result_mask_bits(const tessera_result* result, size_t index, tessera_bits* bits) {
  return guarded([&] {
    const MaskPatch& patch = object_of(result, index).mask;
    const PixelBox& where = patch.where;
    given(bits, "bits") = {where.x0, where.y0, where.x1, where.y1, size_t(patch.view().row_words()), patch.words.data()};
  });
}

tessera_status tessera_result_outline(const tessera_result* result, size_t index, size_t part, const float** xy, size_t* points) {
  static_assert(sizeof(Point) == 2 * sizeof(float));
  return guarded([&] {
    const std::vector<Polygon>& rings = object_of(result, index).rings;
    if (part >= rings.size()) refuse(fmt::format("outline {} of {}", part, rings.size()));
    given(xy, "xy"), given(points, "points");
    *xy = &rings[part].front().x;
    *points = rings[part].size();
  });
}
