// One functor per unary op: value f(x) and derivative df(x), in the arithmetic of T (float or double). Shared by the reference
// backend and device code, so it includes no more than it must.
#pragma once

#include <cmath>

#include "tensor/ops/host_device.h"

namespace tessera::functors {

// 1 / (1 + exp(-x)), without overflow for large |x|.
struct Sigmoid {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    const T e = std::exp(-std::abs(x));
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    const T e = std::exp(-std::abs(x));  // s (1 - s) is even in x
    return e / ((T(1) + e) * (T(1) + e));
  }
};

// x * sigmoid(x) (Elfwing et al. 2018).
struct Silu {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return x * Sigmoid::f(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return Sigmoid::f(x) + x * Sigmoid::df(x);
  }
};

// max(x, 0); NaN stays NaN; the derivative at 0 is 0.
struct Relu {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return x < T(0) ? T(0) : x;
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return x > T(0) ? T(1) : T(0);
  }
};

struct Tanh {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return std::tanh(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    const T y = std::tanh(x);
    return T(1) - y * y;
  }
};

struct Exp {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return std::exp(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return std::exp(x);
  }
};

struct Log {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return std::log(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return T(1) / x;
  }
};

struct Sqrt {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return std::sqrt(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return T(0.5) / std::sqrt(x);
  }
};

struct Square {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return x * x;
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return T(2) * x;
  }
};

struct Negate {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return -x;
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T) {
    return T(-1);
  }
};

// |x|; the derivative at 0 is 0.
struct Abs {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return std::abs(x);
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
  }
};

// log(1 + exp(x)), without overflow; also the cross-entropy of a logit x against 0.
struct Softplus {
  template <class T>
  TESSERA_HOST_DEVICE static T f(T x) {
    return (x > T(0) ? x : T(0)) + std::log1p(std::exp(-std::abs(x)));
  }
  template <class T>
  TESSERA_HOST_DEVICE static T df(T x) {
    return Sigmoid::f(x);
  }
};

}  // namespace tessera::functors
