// simdgroup_matrix. A lane holds (row, column) and (row, column + 1): the layout MLX's kernels rely on
// (BaseMMAFrag::get_coord). Apple documents the type, not the layout.
#pragma once
#include "simd.h"

namespace metal {
static inline int msl_row(int lane) { return (lane / 4 & 4) + lane / 2 % 4; }
static inline int msl_column(int lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }

template <typename T, int R, int C> struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "Metal has only 8x8");
  vec<T, 2> e;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T d) {
    e[0] = row() == column() ? d : T(0);
    e[1] = row() == column() + 1 ? d : T(0);
  }
  static int row() { return msl_row(msl_rt_lane()); }
  static int column() { return msl_column(msl_rt_lane()); }
  vec<T, 2>& thread_elements() { return e; }
  const vec<T, 2>& thread_elements() const { return e; }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <typename T> simdgroup_matrix<T, 8, 8> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, 8, 8> m;
  m.e = vec<T, 2>(value);
  return m;
}

static inline ulong msl_offset(int r, int c, ulong stride, ulong2 origin, bool transposed) {
  return transposed ? (origin.y + c) * stride + origin.x + r : (origin.y + r) * stride + origin.x + c;
}
#define MSL_MATRIX_MEMORY(D)                                                                                  \
  template <typename T>                                                                                       \
  METAL_FUNC void simdgroup_load(thread simdgroup_matrix<T, 8, 8>& m, const D T* p, ulong stride = 8,         \
                                 ulong2 origin = ulong2{0, 0}, bool transposed = false) {                     \
    for (int k = 0; k < 2; k++) m.e[k] = p[msl_offset(m.row(), m.column() + k, stride, origin, transposed)];  \
  }                                                                                                           \
  template <typename T>                                                                                       \
  METAL_FUNC void simdgroup_store(const thread simdgroup_matrix<T, 8, 8>& m, D T* p, ulong stride = 8,        \
                                  ulong2 origin = ulong2{0, 0}, bool transposed = false) {                    \
    for (int k = 0; k < 2; k++) p[msl_offset(m.row(), m.column() + k, stride, origin, transposed)] = m.e[k];  \
  }
MSL_MATRIX_MEMORY(device)
#ifdef MSL_LINT
MSL_MATRIX_MEMORY(threadgroup)
#endif

template <typename TD, typename TA, typename TB, typename TC>
MSL_OPAQUE void simdgroup_multiply_accumulate(simdgroup_matrix<TD, 8, 8>& d, const simdgroup_matrix<TA, 8, 8>& a,
                                              const simdgroup_matrix<TB, 8, 8>& b,
                                              const simdgroup_matrix<TC, 8, 8>& c, MSL_SITE) {
  float4 mine{float(a.e[0]), float(a.e[1]), float(b.e[0]), float(b.e[1])};
  msl_all<float4> all = msl_exchange(mine, "simdgroup_multiply_accumulate", site_);
  if (all.mask != 0xFFFFFFFFu) msl_rt_fail(site_, "simd_inactive_lane", "simdgroup_matrix with inactive lanes");
  float A[8][8], B[8][8];
  for (int lane = 0; lane < 32; lane++)
    for (int k = 0; k < 2; k++) {
      A[msl_row(lane)][msl_column(lane) + k] = all.v[lane][k];
      B[msl_row(lane)][msl_column(lane) + k] = all.v[lane][2 + k];
    }
  for (int k = 0; k < 2; k++) {
    float sum = float(c.e[k]);
    for (int i = 0; i < 8; i++) sum = __builtin_fmaf(A[d.row()][i], B[i][d.column() + k], sum);
    d.e[k] = TD(sum);
  }
}
template <typename TD, typename TA, typename TB>
METAL_FUNC void simdgroup_multiply(simdgroup_matrix<TD, 8, 8>& d, const simdgroup_matrix<TA, 8, 8>& a,
                                   const simdgroup_matrix<TB, 8, 8>& b, MSL_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix(0.0f), site_);
}
}  // namespace metal
