// The sum over a threadgroup, in every lane. `partial` must not be in use.
template <int SIMDGROUPS>
inline float sum_of_all(float value, threadgroup float* partial, uint lane, uint simdgroup) {
  value = simd_sum(value);
  if (lane == 0) {
    partial[simdgroup] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float sum = 0.0f;
  for (int k = 0; k < SIMDGROUPS; k++) {
    sum += partial[k];
  }
  return sum;
}

// body
// One threadgroup: the average of two rows, held in registers, and its norm.
constexpr int EACH = (WIDTH + THREADS - 1) / THREADS;
constexpr int SIMDGROUPS = THREADS / 32;
threadgroup float sums[SIMDGROUPS];
threadgroup float squares[SIMDGROUPS];

uint lane = thread_index_in_simdgroup, simdgroup = simdgroup_index_in_threadgroup;
int thread_index = int(thread_index_in_threadgroup);
size_t to = size_t(threadgroup_position_in_grid.x) * WIDTH;
size_t from = size_t(firsts[threadgroup_position_in_grid.x]) * WIDTH;
float held[EACH];
float total = 0.0f;
for (int k = 0; k < EACH; k++) {
  int i = k * THREADS + thread_index;
  held[k] = 0.0f;
  if (i < WIDTH) {
    float sum = static_cast<float>(x[from + i]) + static_cast<float>(x[from + WIDTH + i]);
    held[k] = static_cast<float>(static_cast<T>(0.5f * sum));
  }
  total += held[k];
}
float mean = sum_of_all<SIMDGROUPS>(total, sums, lane, simdgroup) / float(WIDTH);

float spread = 0.0f;
for (int k = 0; k < EACH; k++) {
  int i = k * THREADS + thread_index;
  held[k] = i < WIDTH ? held[k] - mean : 0.0f;
  spread += held[k] * held[k];
}
float variance = sum_of_all<SIMDGROUPS>(spread, squares, lane, simdgroup) / float(WIDTH);

float scale = metal::precise::rsqrt(variance + eps);
for (int k = 0; k < EACH; k++) {
  int i = k * THREADS + thread_index;
  if (i < WIDTH) {
    out[to + i] = static_cast<T>(held[k] * scale * static_cast<float>(weight[i]) + static_cast<float>(bias[i]));
  }
}
