#include "tensor/ref/element.h"
#include "tensor/ref/ref_backend.h"

namespace tessera {

namespace {
// As a C++ cast; the short floats go through float.
template <class To, class From>
To converted(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (ref::kIsShortFloat<From>) {
    return converted<To>(float(value));
  } else if constexpr (ref::kIsShortFloat<To>) {
    return To(float(value));
  } else {
    return To(value);
  }
}
}  // namespace

void RefBackend::fill(const StridedView& y, double value) {
  ref::for_any(y.t, [&]<class T>() {
    const T element = ref::rounded<T>(value);
    const int64_t n = numel(y.shape);
    for (int64_t i = 0; i < n; ++i) data<T>(y)[ref::offset_of(i, y.shape, y.strides)] = element;
  });
}

void RefBackend::copy(const StridedView& x, const StridedView& y) {
  ref::for_any(x.t, [&]<class From>() {
    ref::for_any(y.t, [&]<class To>() {
      const int64_t n = numel(y.shape);
      for (int64_t i = 0; i < n; ++i) {
        data<To>(y)[ref::offset_of(i, y.shape, y.strides)] = converted<To>(data<From>(x)[ref::offset_of(i, x.shape, x.strides)]);
      }
    });
  });
}

}  // namespace tessera
