#include "yolo/eval/image_result.h"

#include <cstring>

namespace tessera {

namespace {

class Writer {
 public:
  template <class T>
  void value(const T& v) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes.append(reinterpret_cast<const char*>(&v), sizeof(T));
  }
  template <class T>
  void list(const std::vector<T>& v) {
    static_assert(std::is_trivially_copyable_v<T>);
    value(int64_t(v.size()));
    bytes.append(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T));
  }
  std::string bytes;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }
  template <class T>
  void value(T& v) {
    take(&v, sizeof(T));
  }
  template <class T>
  void list(std::vector<T>& v) {
    int64_t n = 0;
    value(n);
    v.resize(size_t(n));
    take(v.data(), v.size() * sizeof(T));
  }

 private:
  void take(void* to, size_t n) {
    TESSERA_CHECK(n <= rest_.size(), "detections of another rank: {} bytes wanted, {} left", n, rest_.size());
    if (n > 0) std::memcpy(to, rest_.data(), n);
    rest_.remove_prefix(n);
  }
  std::string_view rest_;
};

}  // namespace

std::string pack(const std::vector<ImageResult>& results) {
  Writer w;
  for (const ImageResult& r : results) {
    w.value(r.index);
    w.list(r.detections.scores);
    w.list(r.detections.classes);
    w.list(r.box_tp);
    w.list(r.mask_tp);
    w.list(r.label_classes);
    w.value(int64_t(r.scored.size()));
    for (const ScoredDetection& d : r.scored) {
      w.value(d.class_id);
      w.value(d.score);
      w.value(d.box);
      w.value(d.mask.height);
      w.value(d.mask.width);
      w.list(d.mask.counts);
    }
  }
  return std::move(w.bytes);
}

std::vector<ImageResult> unpack(std::string_view bytes) {
  std::vector<ImageResult> results;
  for (Reader in(bytes); !in.done();) {
    ImageResult& r = results.emplace_back();
    in.value(r.index);
    in.list(r.detections.scores);
    in.list(r.detections.classes);
    in.list(r.box_tp);
    in.list(r.mask_tp);
    in.list(r.label_classes);
    int64_t scored = 0;
    in.value(scored);
    for (int64_t i = 0; i < scored; ++i) {
      ScoredDetection& d = r.scored.emplace_back();
      d.image = r.index;
      in.value(d.class_id);
      in.value(d.score);
      in.value(d.box);
      in.value(d.mask.height);
      in.value(d.mask.width);
      in.list(d.mask.counts);
    }
  }
  return results;
}

std::vector<ImageResult> interleaved(std::vector<std::vector<ImageResult>> parts) {
  std::vector<ImageResult> all;
  bool more = true;
  for (size_t i = 0; more; ++i) {
    more = false;
    for (auto& part : parts) {
      if (i < part.size()) all.push_back(std::move(part[i])), more = true;
    }
  }
  return all;
}

}  // namespace tessera
