// body
// One threadgroup: SPAN values. The maximum of the chunk is that of the first launch's threadgroups.
threadgroup float highest[THREADS / 32];
int thread_index = int(thread_index_in_threadgroup);
float top = -INFINITY;
for (int i = thread_index; i < groups; i += THREADS) {
  top = max(top, maxima[i]);
}
top = simd_max(top);
if (thread_index_in_simdgroup == 0) {
  highest[simdgroup_index_in_threadgroup] = top;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
for (int k = 0; k < THREADS / 32; k++) {
  top = max(top, highest[k]);
}
float low = top - range;
int first = int(threadgroup_position_in_grid.x) * SPAN;
for (int i = first + thread_index; i < min(values, first + SPAN); i += THREADS) {
  float value = logs[i];
  out[i] = ((value < low ? low : value) + 4.0f) / 4.0f;
}
