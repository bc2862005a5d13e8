// m: the largest logit; s = sum exp(x - m); t = sum exp(x - m) (x - m)
struct Sums {
  float m;
  float s;
  float t;
};

inline Sums nothing() {
  Sums sums;
  sums.m = -INFINITY;
  sums.s = 0.0f;
  sums.t = 0.0f;
  return sums;
}

// The same sums around a larger m. Sums of nothing, and those of -inf alone, have s = 0.
inline Sums around(Sums a, float m) {
  if (a.s > 0.0f) {
    float shift = a.m - m;
    float factor = metal::precise::exp(shift);
    a.t = factor * (a.t + shift * a.s);
    a.s = factor * a.s;
  }
  a.m = m;
  return a;
}

inline Sums merged(Sums a, Sums b) {
  float m = metal::max(a.m, b.m);
  a = around(a, m);
  b = around(b, m);
  a.s += b.s;
  a.t += b.t;
  return a;
}

inline Sums over_lanes(Sums own) {
  own = around(own, metal::simd_max(own.m));
  own.s = metal::simd_sum(own.s);
  own.t = metal::simd_sum(own.t);
  return own;
}

// body
constexpr int SIMDGROUPS = THREADS / 32;
threadgroup float group_m[SIMDGROUPS];
threadgroup float group_s[SIMDGROUPS];
threadgroup float group_t[SIMDGROUPS];

int row = int(threadgroup_position_in_grid.x);
size_t start = size_t(row) * VOCABULARY;
Sums sums = nothing();
for (int i = int(thread_index_in_threadgroup); i < VOCABULARY; i += THREADS) {
  float value = static_cast<float>(logits[start + i]);
  if (value > sums.m) {
    sums = around(sums, value);
  }
  if (value != -INFINITY) {  // but what is no number makes all of the row none
    float below = value - sums.m;
    float weight = metal::precise::exp(below);
    sums.s += weight;
    sums.t += weight * below;
  }
}

sums = over_lanes(sums);
if (thread_index_in_simdgroup == 0) {
  group_m[simdgroup_index_in_threadgroup] = sums.m;
  group_s[simdgroup_index_in_threadgroup] = sums.s;
  group_t[simdgroup_index_in_threadgroup] = sums.t;
}
threadgroup_barrier(mem_flags::mem_threadgroup);

if (thread_index_in_threadgroup == 0) {
  Sums all = nothing();
  for (int k = 0; k < SIMDGROUPS; k++) {
    Sums one;
    one.m = group_m[k];
    one.s = group_s[k];
    one.t = group_t[k];
    all = merged(all, one);
  }
  float log_s = metal::precise::log(all.s);
  float chosen = static_cast<float>(logits[start + targets[row]]);
  logprob[row] = (chosen - all.m) - log_s;
  entropy[row] = log_s - all.t / all.s;
  log_sum[row] = all.m + log_s;
  top[row] = all.m;
  log_below[row] = log_s;
}
