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
  template <class T, class Each>
  void records(const std::vector<T>& v, Each each) {
    value(int64_t(v.size()));
    for (const T& one : v) each(one);
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
  template <class T, class Each>
  void records(std::vector<T>& v, Each each) {
    for (int64_t i = 0, n = count(); i < n; ++i) each(v.emplace_back());
  }

 private:
  int64_t count() {
    int64_t n = 0;
    value(n);
    return n;
  }
  void take(void* to, size_t n) {
    TESSERA_CHECK(n <= rest_.size(), "detections of another rank: {} bytes wanted, {} left", n, rest_.size());
    if (n > 0) std::memcpy(to, rest_.data(), n);
    rest_.remove_prefix(n);
  }
  std::string_view rest_;
};

// What travels, in one order for both directions: Io is a Writer and Result const, or a Reader.
template <class Io, class Result>
void visit_fields(Io& io, Result& r) {
  const auto mask = [&](auto& m) {
    io.value(m.height);
    io.value(m.width);
    io.list(m.counts);
  };
  io.value(r.index);
  io.list(r.detections.scores);
  io.list(r.detections.classes);
  io.list(r.box_tp);
  io.list(r.mask_tp);
  io.list(r.mask_iou);
  io.list(r.label_classes);
  io.records(r.truths, [&](auto& t) {
    io.value(t.class_id);
    io.value(t.box);
    mask(t.mask);
  });
  io.records(r.scored, [&](auto& d) {
    io.value(d.class_id);
    io.value(d.score);
    io.value(d.box);
    mask(d.mask);
    io.value(d.compared);
  });
}

}  // namespace

std::string pack(const std::vector<ImageResult>& results) {
  Writer w;
  for (const ImageResult& r : results) visit_fields(w, r);
  return std::move(w.bytes);
}

std::vector<ImageResult> unpack(std::string_view bytes) {
  std::vector<ImageResult> results;
  for (Reader in(bytes); !in.done();) {
    ImageResult& r = results.emplace_back();
    visit_fields(in, r);
    for (ScoredDetection& d : r.scored) d.image = r.index;
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
