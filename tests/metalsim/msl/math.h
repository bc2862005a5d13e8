// Metal's mathematics. One overload a type, as there: a call with mixed types is ambiguous there and here.
#pragma once
#include "types.h"

namespace metal {
template <typename T, int N> using msl_v = T __attribute__((ext_vector_type(N)));  // deducible; an alias of vec is not

#define MSL_EACH1(name)                                                                        \
  template <typename T, int N> METAL_FUNC msl_v<T, N> name(msl_v<T, N> a) {                    \
    msl_v<T, N> r;                                                                             \
    for (int i = 0; i < N; i++) r[i] = name(T(a[i]));                                          \
    return r;                                                                                  \
  }
#define MSL_EACH2(name)                                                                        \
  template <typename T, int N> METAL_FUNC msl_v<T, N> name(msl_v<T, N> a, msl_v<T, N> b) {     \
    msl_v<T, N> r;                                                                             \
    for (int i = 0; i < N; i++) r[i] = name(T(a[i]), T(b[i]));                                 \
    return r;                                                                                  \
  }
#define MSL_F1(name, call)                                                                     \
  METAL_FUNC float name(float x) { return call; }                                              \
  METAL_FUNC half name(half h_) { float x = h_; return half(call); }                           \
  METAL_FUNC bfloat name(bfloat b_) { float x = b_; return bfloat(call); }                     \
  MSL_EACH1(name)
#define MSL_F2(name, call)                                                                     \
  METAL_FUNC float name(float x, float y) { return call; }                                     \
  METAL_FUNC half name(half a_, half b_) { float x = a_, y = b_; return half(call); }          \
  METAL_FUNC bfloat name(bfloat a_, bfloat b_) { float x = a_, y = b_; return bfloat(call); }  \
  MSL_EACH2(name)
// F(value, ulps) makes the value inexact, or not.
#define MSL_B1(F, name) MSL_F1(name, F(__builtin_##name##f(x), 4))
#define MSL_INEXACT(F)                                                                         \
  MSL_B1(F, exp) MSL_B1(F, exp2) MSL_B1(F, log) MSL_B1(F, log2) MSL_B1(F, log10)               \
  MSL_B1(F, sin) MSL_B1(F, cos) MSL_B1(F, tan) MSL_B1(F, asin) MSL_B1(F, acos) MSL_B1(F, atan) \
  MSL_B1(F, sinh) MSL_B1(F, cosh) MSL_B1(F, tanh)                                              \
  MSL_B1(F, asinh) MSL_B1(F, acosh) MSL_B1(F, atanh)                                           \
  MSL_F1(exp10, F(__builtin_powf(10.0f, x), 4))                                                \
  MSL_F1(sinpi, F(__builtin_sinf(M_PI_F * x), 4)) MSL_F1(cospi, F(__builtin_cosf(M_PI_F * x), 4)) \
  MSL_F1(sqrt, F(__builtin_sqrtf(x), 2)) MSL_F1(rsqrt, F(1.0f / __builtin_sqrtf(x), 2))        \
  MSL_F2(pow, F(__builtin_powf(x, y), 4)) MSL_F2(powr, F(__builtin_powf(x, y), 4))             \
  MSL_F2(atan2, F(__builtin_atan2f(x, y), 4)) MSL_F2(divide, F(x / y, 2))
#define MSL_ROUNDED                                                                            \
  MSL_F1(floor, __builtin_floorf(x)) MSL_F1(ceil, __builtin_ceilf(x))                          \
  MSL_F1(trunc, __builtin_truncf(x)) MSL_F1(round, __builtin_roundf(x))                        \
  MSL_F1(rint, __builtin_rintf(x)) MSL_F1(fabs, __builtin_fabsf(x))                            \
  MSL_F1(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))                      \
  MSL_F2(fmod, __builtin_fmodf(x, y)) MSL_F2(fdim, __builtin_fdimf(x, y))                      \
  MSL_F2(fmax, __builtin_fmaxf(x, y)) MSL_F2(fmin, __builtin_fminf(x, y))                      \
  MSL_F2(copysign, __builtin_copysignf(x, y))
#define MSL_EXACTLY(value, ulps) (value)
#define MSL_ROUGHLY(value, ulps) msl_rt_inexact((value), (ulps))
namespace precise { MSL_INEXACT(MSL_EXACTLY) MSL_ROUNDED }
namespace fast { MSL_INEXACT(MSL_ROUGHLY) MSL_ROUNDED }
#ifdef MSL_FAST_MATH
MSL_INEXACT(MSL_ROUGHLY)
#else
MSL_INEXACT(MSL_EXACTLY)
#endif
MSL_ROUNDED

#define MSL_INT(T)                                                                             \
  METAL_FUNC T max(T a, T b) { return a > b ? a : b; }                                         \
  METAL_FUNC T min(T a, T b) { return a < b ? a : b; }                                         \
  METAL_FUNC T clamp(T x, T low, T high) { return x < low ? low : x > high ? high : x; }
MSL_INT(char) MSL_INT(int8_t) MSL_INT(uint8_t) MSL_INT(int16_t) MSL_INT(uint16_t)
MSL_INT(int32_t) MSL_INT(uint32_t) MSL_INT(int64_t) MSL_INT(uint64_t)
#define MSL_SIGNED(T) METAL_FUNC T abs(T x) { return x < 0 ? -x : x; }
MSL_SIGNED(int8_t) MSL_SIGNED(int16_t) MSL_SIGNED(int32_t) MSL_SIGNED(int64_t)
#define MSL_FLOAT(T)                                                                           \
  METAL_FUNC T max(T a, T b) { return T(__builtin_fmaxf(a, b)); }                              \
  METAL_FUNC T min(T a, T b) { return T(__builtin_fminf(a, b)); }                              \
  METAL_FUNC T clamp(T x, T low, T high) { return min(max(x, low), high); }                    \
  METAL_FUNC T saturate(T x) { return clamp(x, T(0), T(1)); }                                  \
  METAL_FUNC T abs(T x) { return T(__builtin_fabsf(x)); }                                      \
  METAL_FUNC T sign(T x) { return T(x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f); }                    \
  METAL_FUNC T mix(T a, T b, T t) { return T(a + (b - a) * t); }                               \
  METAL_FUNC T step(T edge, T x) { return T(x < edge ? 0.0f : 1.0f); }                         \
  METAL_FUNC T fma(T a, T b, T c) { return T(__builtin_fmaf(a, b, c)); }                       \
  METAL_FUNC T ldexp(T x, int e) { return T(__builtin_ldexpf(x, e)); }                         \
  METAL_FUNC bool isnan(T x) { return __builtin_isnan((float)x); }                             \
  METAL_FUNC bool isinf(T x) { return __builtin_isinf((float)x); }                             \
  METAL_FUNC bool isfinite(T x) { return __builtin_isfinite((float)x); }                       \
  METAL_FUNC bool signbit(T x) { return __builtin_signbitf(x); }
MSL_FLOAT(float) MSL_FLOAT(half) MSL_FLOAT(bfloat)

#define MSL_VECTOR template <typename T, int N> METAL_FUNC
MSL_EACH1(abs) MSL_EACH2(max) MSL_EACH2(min)
MSL_VECTOR msl_v<T, N> max(msl_v<T, N> a, T b) { return max(a, msl_v<T, N>(b)); }
MSL_VECTOR msl_v<T, N> min(msl_v<T, N> a, T b) { return min(a, msl_v<T, N>(b)); }
MSL_VECTOR msl_v<T, N> clamp(msl_v<T, N> a, T low, T high) { return min(max(a, low), high); }
MSL_VECTOR msl_v<T, N> fma(msl_v<T, N> a, msl_v<T, N> b, msl_v<T, N> c) {
  msl_v<T, N> r;
  for (int i = 0; i < N; i++) r[i] = fma(T(a[i]), T(b[i]), T(c[i]));
  return r;
}
MSL_VECTOR T dot(msl_v<T, N> a, msl_v<T, N> b) {
  T sum = T(a[0] * b[0]);
  for (int i = 1; i < N; i++) sum += a[i] * b[i];
  return sum;
}
#define MSL_TESTS(name)                                                                        \
  MSL_VECTOR msl_v<bool, N> name(msl_v<T, N> a) {                                              \
    msl_v<bool, N> r;                                                                          \
    for (int i = 0; i < N; i++) r[i] = name(T(a[i]));                                          \
    return r;                                                                                  \
  }
MSL_TESTS(isnan) MSL_TESTS(isinf) MSL_TESTS(isfinite)
MSL_VECTOR T length_squared(msl_v<T, N> a) { return dot(a, a); }
MSL_VECTOR T length(msl_v<T, N> a) { return sqrt(dot(a, a)); }
MSL_VECTOR T distance(msl_v<T, N> a, msl_v<T, N> b) { return length(a - b); }
MSL_VECTOR msl_v<T, N> normalize(msl_v<T, N> a) { return a * rsqrt(dot(a, a)); }
MSL_VECTOR bool any(msl_v<T, N> a) { for (int i = 0; i < N; i++) if (a[i]) return true; return false; }
MSL_VECTOR bool all(msl_v<T, N> a) { for (int i = 0; i < N; i++) if (!a[i]) return false; return true; }
template <typename T> METAL_FUNC T select(T a, T b, bool c) { return c ? b : a; }
template <typename T, typename C, int N>
METAL_FUNC msl_v<T, N> select(msl_v<T, N> a, msl_v<T, N> b, msl_v<C, N> c) {
  msl_v<T, N> r;
  for (int i = 0; i < N; i++) r[i] = c[i] ? b[i] : a[i];
  return r;
}

METAL_FUNC float sincos(float x, thread float& c) { c = __builtin_cosf(x); return __builtin_sinf(x); }
METAL_FUNC float modf(float x, thread float& whole) { whole = __builtin_truncf(x); return x - whole; }
METAL_FUNC float frexp(float x, thread int& e) { return __builtin_frexpf(x, &e); }
METAL_FUNC int ilogb(float x) { return __builtin_ilogbf(x); }
METAL_FUNC uint popcount(uint x) { return __builtin_popcount(x); }
METAL_FUNC uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
METAL_FUNC uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
METAL_FUNC uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
METAL_FUNC uint rotate(uint x, uint n) { n &= 31; return n ? (x << n) | (x >> (32 - n)) : x; }
METAL_FUNC uint mulhi(uint a, uint b) { return uint((ulong(a) * b) >> 32); }
METAL_FUNC int mulhi(int a, int b) { return int((long(a) * b) >> 32); }
METAL_FUNC uint extract_bits(uint x, uint at, uint n) { return n ? (x >> at) & (n < 32 ? (1u << n) - 1 : ~0u) : 0; }
METAL_FUNC int mul24(int a, int b) { return a * b; }
METAL_FUNC uint mul24(uint a, uint b) { return a * b; }
METAL_FUNC int mad24(int a, int b, int c) { return a * b + c; }
METAL_FUNC uint mad24(uint a, uint b, uint c) { return a * b + c; }
template <typename T> METAL_FUNC T absdiff(T a, T b) { return a > b ? a - b : b - a; }
}  // namespace metal
