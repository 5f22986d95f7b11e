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
  void mask(const Rle& m) {
    value(m.height);
    value(m.width);
    list(m.counts);
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
    v.resize(size_t(count()));
    take(v.data(), v.size() * sizeof(T));
  }
  int64_t count() {
    int64_t n = 0;
    value(n);
    return n;
  }
  void mask(Rle& m) {
    value(m.height);
    value(m.width);
    list(m.counts);
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
    w.list(r.mask_iou);
    w.list(r.label_classes);
    w.value(int64_t(r.truths.size()));
    for (const ScoredTruth& t : r.truths) {
      w.value(t.class_id);
      w.value(t.box);
      w.mask(t.mask);
    }
    w.value(int64_t(r.scored.size()));
    for (const ScoredDetection& d : r.scored) {
      w.value(d.class_id);
      w.value(d.score);
      w.value(d.box);
      w.mask(d.mask);
      w.value(d.compared);
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
    in.list(r.mask_iou);
    in.list(r.label_classes);
    for (int64_t i = 0, n = in.count(); i < n; ++i) {
      ScoredTruth& t = r.truths.emplace_back();
      in.value(t.class_id);
      in.value(t.box);
      in.mask(t.mask);
    }
    for (int64_t i = 0, n = in.count(); i < n; ++i) {
      ScoredDetection& d = r.scored.emplace_back();
      d.image = r.index;
      in.value(d.class_id);
      in.value(d.score);
      in.value(d.box);
      in.mask(d.mask);
      in.value(d.compared);
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
