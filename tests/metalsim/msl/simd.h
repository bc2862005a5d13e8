// Barriers and SIMD-group functions. All of the latter go through one primitive: every active lane deposits a value
// and gets the 32 deposits back, with the mask of the lanes that took part.
#pragma once
#include "math.h"

namespace metal {
enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
METAL_FUNC void threadgroup_barrier(mem_flags flags, MSL_SITE) { msl_rt_barrier(site_, 1, int(flags)); }
METAL_FUNC void simdgroup_barrier(mem_flags flags, MSL_SITE) { msl_rt_barrier(site_, 0, int(flags)); }

template <typename T> constexpr bool msl_exchangeable = sizeof(T) <= 4 && !__is_same(T, bool);
template <typename T, int N> constexpr bool msl_exchangeable<T __attribute__((ext_vector_type(N)))> = sizeof(T) <= 4;
template <typename T> struct msl_all {
  T v[32];
  uint mask;
  bool has(int i) const { return mask >> i & 1; }
};
template <typename T> MSL_OPAQUE msl_all<T> msl_exchange(T x, const char* op, int site_) {
  static_assert(msl_exchangeable<T>, "SIMD-group functions take no bool and no 64-bit types in Metal");
  msl_all<T> all;
  all.mask = msl_rt_exchange(site_, op, &x, sizeof(T), all.v);
  return all;
}
#define MSL_SIMD template <typename T> MSL_OPAQUE T

#define MSL_REDUCE(name, a_and_b, identity)                                                    \
  MSL_SIMD name(T x, MSL_SITE) {                                                               \
    msl_all<T> all = msl_exchange(x, #name, site_);                                            \
    T t[32];                                                                                   \
    for (int i = 0; i < 32; i++) t[i] = all.has(i) ? all.v[i] : T(identity);                   \
    for (int d = 1; d < 32; d *= 2) /* the ascending butterfly */                              \
      for (int i = 0; i < 32; i += 2 * d) { T a = t[i], b = t[i + d]; t[i] = T(a_and_b); }     \
    return t[0];                                                                               \
  }
MSL_REDUCE(simd_sum, a + b, 0)
MSL_REDUCE(simd_product, a * b, 1)
MSL_REDUCE(simd_and, a & b, ~0)
MSL_REDUCE(simd_or, a | b, 0)
MSL_REDUCE(simd_xor, a ^ b, 0)
MSL_REDUCE(simd_max, max(a, b), x)
MSL_REDUCE(simd_min, min(a, b), x)

// The value of one lane: it must be in range and active.
MSL_SIMD msl_take(const msl_all<T>& all, int from, const char* op, int site_) {
  if (from < 0 || from > 31) msl_rt_fail(site_, "simd_lane_range", op);
  else if (!all.has(from)) msl_rt_fail(site_, "simd_inactive_lane", op);
  return all.v[from & 31];
}
#define MSL_SHUFFLE(name, source)                                                              \
  MSL_SIMD name(T x, ushort n, MSL_SITE) {                                                     \
    msl_all<T> all = msl_exchange(x, #name, site_);                                            \
    return msl_take(all, source, #name, site_);                                                \
  }
MSL_SHUFFLE(simd_shuffle, n)
MSL_SHUFFLE(simd_shuffle_xor, msl_rt_lane() ^ n)
MSL_SHUFFLE(simd_shuffle_rotate_up, (msl_rt_lane() - n) & 31)
MSL_SHUFFLE(simd_shuffle_rotate_down, (msl_rt_lane() + n) & 31)
MSL_SHUFFLE(quad_shuffle, (msl_rt_lane() & ~3) + (n & 3))
MSL_SHUFFLE(quad_shuffle_xor, msl_rt_lane() ^ (n & 3))
MSL_SHUFFLE(quad_broadcast, (msl_rt_lane() & ~3) + (n & 3))

// Up or down past the edge is undefined in Metal: poison (all ones) comes back.
MSL_SIMD msl_poison() { T t; __builtin_memset(&t, 0xFF, sizeof(T)); return t; }
#define MSL_SHIFT(name, source)                                                                \
  MSL_SIMD name(T x, ushort n, MSL_SITE) {                                                     \
    msl_all<T> all = msl_exchange(x, #name, site_);                                            \
    int from = source;                                                                         \
    return from < 0 || from > 31 ? msl_poison<T>() : msl_take(all, from, #name, site_);        \
  }
MSL_SHIFT(simd_shuffle_up, msl_rt_lane() - n)
MSL_SHIFT(simd_shuffle_down, msl_rt_lane() + n)
#define MSL_FILL(name, source)                                                                 \
  MSL_SIMD name(T x, T fill, ushort n, MSL_SITE) {                                             \
    msl_all<T> all = msl_exchange(x, #name, site_), fills = msl_exchange(fill, #name " fill", site_); \
    int from = source;                                                                         \
    return msl_take(from < 0 || from > 31 ? fills : all, from & 31, #name, site_);             \
  }
MSL_FILL(simd_shuffle_and_fill_up, msl_rt_lane() - n)
MSL_FILL(simd_shuffle_and_fill_down, msl_rt_lane() + n)

MSL_SIMD simd_broadcast(T x, ushort n, MSL_SITE) {  // n must be the same in every lane
  msl_all<ushort> wanted = msl_exchange(n, "simd_broadcast lane", site_);
  for (int i = 0; i < 32; i++)
    if (wanted.has(i) && wanted.v[i] != n) msl_rt_fail(site_, "simd_broadcast_divergent", "lanes name different lanes");
  msl_all<T> all = msl_exchange(x, "simd_broadcast", site_);
  return msl_take(all, n, "simd_broadcast", site_);
}
MSL_SIMD simd_broadcast_first(T x, MSL_SITE) {
  msl_all<T> all = msl_exchange(x, "simd_broadcast_first", site_);
  return all.v[__builtin_ctz(all.mask)];
}
#define MSL_PREFIX(name, last, a_and_b, identity)                                              \
  MSL_SIMD name(T x, MSL_SITE) {                                                               \
    msl_all<T> all = msl_exchange(x, #name, site_);                                            \
    T a = T(identity);                                                                         \
    for (int i = 0; i < last; i++) if (all.has(i)) { T b = all.v[i]; a = T(a_and_b); }         \
    return a;                                                                                  \
  }
MSL_PREFIX(simd_prefix_inclusive_sum, msl_rt_lane() + 1, a + b, 0)
MSL_PREFIX(simd_prefix_exclusive_sum, msl_rt_lane(), a + b, 0)
MSL_PREFIX(simd_prefix_inclusive_product, msl_rt_lane() + 1, a * b, 1)
MSL_PREFIX(simd_prefix_exclusive_product, msl_rt_lane(), a * b, 1)

MSL_OPAQUE inline uint msl_ballot(bool x, const char* op, int site_, uint& active) {
  msl_all<uint> all = msl_exchange(uint(x), op, site_);
  active = all.mask;
  uint votes = 0;
  for (int i = 0; i < 32; i++) votes |= all.has(i) && all.v[i] ? 1u << i : 0;
  return votes;
}
struct simd_vote {
  typedef uint64_t vote_t;
  vote_t v;
  simd_vote(vote_t x) : v(x) {}
  explicit operator vote_t() const { return v; }
  bool all() const { return v == 0xFFFFFFFFu; }
  bool any() const { return v != 0; }
};
#define MSL_VOTE(type, name, argument, x, result)                                              \
  MSL_OPAQUE inline type name(argument MSL_SITE) {                                             \
    uint active, votes = msl_ballot(x, #name, site_, active);                                  \
    return type(result);                                                                       \
  }
#define MSL_COMMA ,
MSL_VOTE(bool, simd_any, bool x MSL_COMMA, x, votes != 0)
MSL_VOTE(bool, simd_all, bool x MSL_COMMA, x, votes == active)
MSL_VOTE(simd_vote, simd_ballot, bool x MSL_COMMA, x, votes)
MSL_VOTE(simd_vote, simd_active_threads_mask, , true, active)
MSL_VOTE(bool, simd_is_first, , true, int(__builtin_ctz(active)) == msl_rt_lane())

#define MSL_QUAD(name, a_and_b)                                                                \
  MSL_SIMD name(T x, MSL_SITE) {                                                               \
    msl_all<T> all = msl_exchange(x, #name, site_);                                            \
    int first = msl_rt_lane() & ~3;                                                            \
    T a = all.v[first];                                                                        \
    for (int i = 1; i < 4; i++) { T b = all.v[first + i]; a = T(a_and_b); }                    \
    return a;                                                                                  \
  }
MSL_QUAD(quad_sum, a + b) MSL_QUAD(quad_max, max(a, b)) MSL_QUAD(quad_min, min(a, b))
}  // namespace metal
