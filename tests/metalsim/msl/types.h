// Metal's types, constructors, constants and type traits on clang's vectors. No C++ library is on the include path:
// Metal has none, so std:: must not compile here either.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

#ifndef __METAL_VERSION__
#define __METAL_VERSION__ 310
#endif
#define __METAL__ 1

#ifdef MSL_LINT  // address spaces that are checked; syntax only
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define MSL_TG_DECL(id) static threadgroup
#define MSL_TG_CLASS(id) extern threadgroup  // needs no constructor there, of which C++ has none
#define MSL_TG_REG(variable)
#else
#define device
#define constant
#define threadgroup
// rewrite.py makes MSL_TG_DECL(k) T x[n]; MSL_TG_REG(x); of threadgroup T x[n]; a guard zone, then the variable.
#define MSL_TG_SECTION static __attribute__((section("msl_tg"), used, aligned(16)))
#define MSL_TG_DECL(id)                    \
  MSL_TG_SECTION char msl_guard_##id[64]; \
  MSL_TG_SECTION
#define MSL_TG_CLASS MSL_TG_DECL
#define MSL_TG_REG(variable) msl_rt_threadgroup_variable((void*)&variable, sizeof(variable), #variable)
#endif
#define thread
#define kernel
#define METAL_FUNC inline __attribute__((always_inline))
#define MSL_OPAQUE __attribute__((noinline, convergent, no_sanitize("thread", "undefined")))
// Where a call stands in the kernel; a default argument, so that it is evaluated there.
#define MSL_SITE int site_ = __builtin_LINE() * 512 + (__builtin_COLUMN() & 511)

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __bf16 bfloat;

namespace metal {
template <typename T, int N> using vec = T __attribute__((ext_vector_type(N)));
}
#define MSL_VECTORS(T) typedef metal::vec<T, 2> T##2; typedef metal::vec<T, 3> T##3; typedef metal::vec<T, 4> T##4;
MSL_VECTORS(char) MSL_VECTORS(uchar) MSL_VECTORS(short) MSL_VECTORS(ushort) MSL_VECTORS(int) MSL_VECTORS(uint)
MSL_VECTORS(long) MSL_VECTORS(ulong) MSL_VECTORS(half) MSL_VECTORS(bfloat) MSL_VECTORS(float) MSL_VECTORS(bool)

template <typename T, int N> struct msl_packed {
  T v[N];
  msl_packed() = default;
  msl_packed(metal::vec<T, N> a) { for (int i = 0; i < N; i++) v[i] = a[i]; }
  operator metal::vec<T, N>() const { metal::vec<T, N> r; for (int i = 0; i < N; i++) r[i] = v[i]; return r; }
  T& operator[](int i) { return v[i]; }
  T operator[](int i) const { return v[i]; }
};
#define MSL_PACKED(T) \
  typedef msl_packed<T, 2> packed_##T##2; typedef msl_packed<T, 3> packed_##T##3; typedef msl_packed<T, 4> packed_##T##4;
MSL_PACKED(float) MSL_PACKED(half) MSL_PACKED(bfloat) MSL_PACKED(int) MSL_PACKED(uint)

// float4(a, b2, c): clang's vectors have no such constructor; rewrite.py makes msl_construct<float4>(a, b2, c) of it.
template <typename S> struct msl_shape { typedef S element; static constexpr int n = 1; };
template <typename T, int N> struct msl_shape<T __attribute__((ext_vector_type(N)))> {
  typedef T element;
  static constexpr int n = N;
};
template <typename V, typename S> METAL_FUNC void msl_put(V& r, int& at, S s) {
  typedef typename msl_shape<V>::element E;
  if constexpr (msl_shape<S>::n == 1) r[at++] = E(s);
  else for (int k = 0; k < msl_shape<S>::n; k++) r[at++] = E(s[k]);
}
template <typename V> METAL_FUNC V msl_construct() { return V{}; }
template <typename V, typename S> METAL_FUNC V msl_construct(S s) {
  if constexpr (msl_shape<S>::n == 1) return V(typename msl_shape<V>::element(s));
  else {
    static_assert(msl_shape<S>::n == msl_shape<V>::n, "vector constructor: size mismatch");
    return __builtin_convertvector(s, V);
  }
}
template <typename V, typename A, typename B, typename... S> METAL_FUNC V msl_construct(A a, B b, S... s) {
  static_assert(msl_shape<A>::n + msl_shape<B>::n + (0 + ... + msl_shape<S>::n) == msl_shape<V>::n,
                "vector constructor: wrong number of components");
  V r;
  int at = 0;
  msl_put(r, at, a), msl_put(r, at, b), (msl_put(r, at, s), ...);
  return r;
}

constexpr half operator""h(long double x) { return half(x); }
constexpr half operator""H(long double x) { return half(x); }
constexpr bfloat operator""bf(long double x) { return bfloat(float(x)); }

template <typename To, typename From> METAL_FUNC To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define HUGE_VALF (__builtin_huge_valf())
#define MAXFLOAT 3.40282346638528859811704183484516925e+38f
#define FLT_MAX MAXFLOAT
#define FLT_MIN 1.17549435e-38f
#define FLT_EPSILON 1.1920928955078125e-07f
#define HALF_MAX 65504.0f
#define M_E_F 2.71828182845904523536028747135266250f
#define M_PI_F 3.14159265358979323846264338327950288f
#define M_PI_2_F 1.57079632679489661923132169163975144f
#define M_1_PI_F 0.318309886183790671537767526745028724f
#define M_2_SQRTPI_F 1.12837916709551257389615890312154517f
#define M_LN2_F 0.693147180559945309417232121458176568f
#define M_LN10_F 2.30258509299404568401799145468436421f
#define M_LOG2E_F 1.44269504088896340735992468100189214f
#define M_LOG10E_F 0.434294481903251827651128918916605082f
#define M_SQRT2_F 1.41421356237309504880168872420969808f
#define M_SQRT1_2_F 0.707106781186547524400844362104849039f

namespace metal {
template <typename T, T V> struct integral_constant {
  static constexpr T value = V;
  typedef T value_type;
  constexpr operator T() const { return V; }
};
template <bool B> using bool_constant = integral_constant<bool, B>;
typedef bool_constant<true> true_type;
typedef bool_constant<false> false_type;
template <typename A, typename B> constexpr bool is_same_v = __is_same(A, B);
template <typename A, typename B> struct is_same : bool_constant<__is_same(A, B)> {};
template <bool B, typename T = void> struct enable_if {};
template <typename T> struct enable_if<true, T> { typedef T type; };
template <bool B, typename T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, typename T, typename F> struct conditional { typedef T type; };
template <typename T, typename F> struct conditional<false, T, F> { typedef F type; };
template <bool B, typename T, typename F> using conditional_t = typename conditional<B, T, F>::type;
template <typename T> using remove_cv_t = __remove_cv(T);
template <typename T> struct remove_cv { typedef remove_cv_t<T> type; };
template <typename T> using remove_reference_t = __remove_reference_t(T);
template <typename T> struct remove_reference { typedef remove_reference_t<T> type; };
template <typename T> using remove_addrspace_t = T;
template <typename T> using add_addrspace_t = T;
template <typename T> struct make_unsigned { typedef __make_unsigned(T) type; };
template <typename T, typename... U> constexpr bool msl_one_of = (... || __is_same(remove_cv_t<T>, U));
template <typename T> constexpr bool is_floating_point_v = msl_one_of<T, float, half, bfloat>;
template <typename T> struct is_floating_point : bool_constant<is_floating_point_v<T>> {};
template <typename T> constexpr bool is_integral_v = __is_integral(T);
template <typename T> struct is_integral : bool_constant<is_integral_v<T>> {};
template <typename T> constexpr bool is_signed_v = __is_signed(T);
template <typename T> constexpr bool is_unsigned_v = __is_unsigned(T);
template <typename T> constexpr bool is_arithmetic_v = is_floating_point_v<T> || is_integral_v<T>;
template <typename From, typename To> constexpr bool is_convertible_v = __is_convertible(From, To);

template <typename T> struct numeric_limits;
#define MSL_INT_LIMITS(T, low, high)                                \
  template <> struct numeric_limits<T> {                            \
    static constexpr T max() { return high; }                       \
    static constexpr T min() { return low; }                        \
    static constexpr T lowest() { return low; }                     \
    static constexpr bool is_signed = (low) < 0;                    \
    static constexpr int digits = sizeof(T) * 8 - is_signed;        \
  };
MSL_INT_LIMITS(char, -128, 127)
MSL_INT_LIMITS(int8_t, -128, 127)
MSL_INT_LIMITS(uint8_t, 0, 255)
MSL_INT_LIMITS(int16_t, -32768, 32767)
MSL_INT_LIMITS(uint16_t, 0, 65535)
MSL_INT_LIMITS(int32_t, -2147483647 - 1, 2147483647)
MSL_INT_LIMITS(uint32_t, 0, 4294967295u)
MSL_INT_LIMITS(int64_t, -9223372036854775807l - 1, 9223372036854775807l)
MSL_INT_LIMITS(uint64_t, 0, 18446744073709551615ul)
MSL_INT_LIMITS(bool, false, true)
#define MSL_FLOAT_LIMITS(T, high, small, step)                          \
  template <> struct numeric_limits<T> {                                \
    static constexpr T max() { return T(high); }                        \
    static constexpr T min() { return T(small); }                       \
    static constexpr T lowest() { return T(-(high)); }                  \
    static constexpr T epsilon() { return T(step); }                    \
    static constexpr T infinity() { return T(__builtin_inff()); }       \
    static constexpr T quiet_NaN() { return T(__builtin_nanf("")); }    \
  };
MSL_FLOAT_LIMITS(float, FLT_MAX, FLT_MIN, FLT_EPSILON)
MSL_FLOAT_LIMITS(half, 65504.0f, 6.103515625e-05f, 0.0009765625f)
MSL_FLOAT_LIMITS(bfloat, 3.38953139e38f, FLT_MIN, 0.0078125f)
}  // namespace metal
