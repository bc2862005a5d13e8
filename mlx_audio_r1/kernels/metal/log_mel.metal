// One threadgroup: FRAMES frames. Their power is held while every filter sums over its own span of it.
// body
threadgroup float power[FRAMES * BINS];
threadgroup float highest[THREADS / 32];

int thread_index = int(thread_index_in_threadgroup);
int first = int(threadgroup_position_in_grid.x) * FRAMES, count = min(FRAMES, frames - first);
for (int i = thread_index; i < count * BINS; i += THREADS) {
  size_t at = 2 * (size_t(first) * BINS + i);
  float re = spectrum[at], im = spectrum[at + 1];
  power[i] = re * re + im * im;
}
threadgroup_barrier(mem_flags::mem_threadgroup);

float top = -INFINITY;
for (int i = thread_index; i < count * MELS; i += THREADS) {
  int frame = i / MELS, filter = 3 * (i % MELS);
  int begin = spans[filter], end = spans[filter + 1], offset = spans[filter + 2];
  float sum = 0.0f;
  for (int bin = begin; bin < end; bin++) {
    sum += power[frame * BINS + bin] * weights[offset + bin - begin];
  }
  float value = metal::precise::log10(sum < least ? least : sum);  // what is no number stays none
  logs[size_t(first) * MELS + i] = value;
  top = max(top, value);
}
top = simd_max(top);
if (thread_index_in_simdgroup == 0) {
  highest[simdgroup_index_in_threadgroup] = top;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
if (thread_index == 0) {
  for (int k = 0; k < THREADS / 32; k++) {
    top = max(top, highest[k]);
  }
  maxima[threadgroup_position_in_grid.x] = top;
}
