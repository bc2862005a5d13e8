// Atomics of the types Metal has. Relaxed all of them: they order nothing but themselves.
#pragma once
#include "simd.h"

namespace metal {
enum memory_order { memory_order_relaxed, memory_order_acquire, memory_order_release, memory_order_acq_rel,
                    memory_order_seq_cst };
enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };
inline void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device) {}
template <typename T> struct atomic {
  static_assert(msl_one_of<T, int, uint, float, bool, ulong, uint64_t>, "Metal has no atomic of this type");
  T v_;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;

template <typename T> MSL_OPAQUE T& msl_cell(const volatile atomic<T>* p, int site_, int kind) {
  msl_rt_atomic(p, sizeof(T), site_, kind);
  return ((atomic<T>*)p)->v_;
}
#define MSL_CELL(kind) T& cell = msl_cell((const volatile atomic<T>*)p, site_, kind)
#define MSL_UPDATE(D, name, result)                                                                             \
  template <typename T, typename U>                                                                             \
  MSL_OPAQUE T atomic_##name##_explicit(volatile D atomic<T>* p, U value, memory_order, MSL_SITE) {             \
    MSL_CELL(2);                                                                                                \
    T a = cell, b = T(value);                                                                                   \
    cell = T(result);                                                                                           \
    return a;                                                                                                   \
  }
#define MSL_ATOMICS(D)                                                                                          \
  template <typename T>                                                                                         \
  MSL_OPAQUE T atomic_load_explicit(const volatile D atomic<T>* p, memory_order, MSL_SITE) {                    \
    MSL_CELL(0);                                                                                                \
    return cell;                                                                                                \
  }                                                                                                             \
  template <typename T, typename U>                                                                             \
  MSL_OPAQUE void atomic_store_explicit(volatile D atomic<T>* p, U value, memory_order, MSL_SITE) {             \
    MSL_CELL(1);                                                                                                \
    cell = T(value);                                                                                            \
  }                                                                                                             \
  template <typename T>                                                                                         \
  MSL_OPAQUE bool atomic_compare_exchange_weak_explicit(volatile D atomic<T>* p, thread T* expected, T value,   \
                                                        memory_order, memory_order, MSL_SITE) {                 \
    MSL_CELL(2);                                                                                                \
    bool same = !__builtin_memcmp(&cell, expected, sizeof(T));                                                  \
    if (same) cell = value; else *expected = cell;                                                              \
    return same;                                                                                                \
  }                                                                                                             \
  MSL_UPDATE(D, exchange, b) MSL_UPDATE(D, fetch_add, a + b) MSL_UPDATE(D, fetch_sub, a - b)                    \
  MSL_UPDATE(D, fetch_max, (a > b ? a : b)) MSL_UPDATE(D, fetch_min, (a < b ? a : b))                           \
  MSL_UPDATE(D, fetch_or, a | b) MSL_UPDATE(D, fetch_and, a & b) MSL_UPDATE(D, fetch_xor, a ^ b)
MSL_ATOMICS(device)
#ifdef MSL_LINT
MSL_ATOMICS(threadgroup)
#endif
}  // namespace metal
