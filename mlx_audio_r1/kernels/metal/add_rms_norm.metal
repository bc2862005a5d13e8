// body
constexpr int EACH = (WIDTH + THREADS - 1) / THREADS;
constexpr int SIMDGROUPS = THREADS / 32;
threadgroup float partial[SIMDGROUPS];

size_t row = size_t(threadgroup_position_in_grid.x) * WIDTH;
int thread_index = int(thread_index_in_threadgroup);
T held[EACH];
float squares = 0.0f;
for (int k = 0; k < EACH; k++) {
  int i = k * THREADS + thread_index;
  held[k] = T(0);
  if (i < WIDTH) {
    held[k] = static_cast<T>(x[row + i] + residual[row + i]);
    total[row + i] = held[k];
  }
  float value = static_cast<float>(held[k]);
  squares += value * value;
}

squares = simd_sum(squares);
if (thread_index_in_simdgroup == 0) {
  partial[simdgroup_index_in_threadgroup] = squares;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
float sum = 0.0f;
for (int k = 0; k < SIMDGROUPS; k++) {
  sum += partial[k];
}

float scale = metal::precise::rsqrt(sum / float(WIDTH) + eps);
for (int k = 0; k < EACH; k++) {
  int i = k * THREADS + thread_index;
  if (i < WIDTH) {
    normed[row + i] = static_cast<T>(static_cast<T>(static_cast<float>(held[k]) * scale) * weight[i]);
  }
}
