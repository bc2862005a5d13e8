// Unsigned numbers in the order of the floats; the two zeros are one.
inline uint ordered(float x) {
  uint bits = x == 0.0f ? 0u : as_type<uint>(x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// What is no number is not there.
inline float present(float x) {
  return x > -INFINITY ? x : -INFINITY;
}

// The sum over the threadgroup of each of N values of a lane, for every lane. room: N floats a simdgroup.
template <int N, int SIMDGROUPS>
void sum_over_group(thread float* values, threadgroup float* room, uint lane, uint simdgroup) {
  for (int d = 0; d < N; d++) {
    float sum = metal::simd_sum(values[d]);
    if (lane == 0) {
      room[simdgroup * N + d] = sum;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int d = 0; d < N; d++) {
    float sum = 0.0f;
    for (int g = 0; g < SIMDGROUPS; g++) {
      sum += room[g * N + d];
    }
    values[d] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

// The lowest key such that what is above it weighs less than limit: exp(x - top) each, or 1 each to count.
template <typename P, int VOCABULARY, int THREADS, bool COUNT>
uint threshold(P row, float top, float limit, threadgroup float* room, uint thread_index, uint lane,
               uint simdgroup) {
  constexpr int CANDIDATES = 15;  // the sixteenth is known to do
  uint prefix = 0;
  for (int shift = 28; shift >= 0; shift -= 4) {
    prefix = prefix << 4;
    float above[CANDIDATES];
    for (int d = 0; d < CANDIDATES; d++) {
      above[d] = 0.0f;
    }
    for (int i = int(thread_index); i < VOCABULARY; i += THREADS) {
      float x = present(static_cast<float>(row[i]));
      uint key = ordered(x) >> uint(shift);
      if (key > prefix) {
        float weight = COUNT ? 1.0f : metal::precise::exp(x - top);
        for (int d = 0; d < CANDIDATES; d++) {
          above[d] += key > prefix + uint(d) ? weight : 0.0f;
        }
      }
    }
    sum_over_group<CANDIDATES, THREADS / 32>(above, room, lane, simdgroup);
    uint digit = 0;
    for (int d = 0; d < CANDIDATES; d++) {
      digit += above[d] >= limit ? 1u : 0u;
    }
    prefix += digit;
  }
  return prefix;
}

// body
constexpr int SIMDGROUPS = THREADS / 32;
constexpr int SPAN = ((VOCABULARY + SIMDGROUPS - 1) / SIMDGROUPS + 31) / 32 * 32;  // of one simdgroup
threadgroup float room[15 * SIMDGROUPS];
threadgroup float spans[SIMDGROUPS];
threadgroup float ties[SIMDGROUPS];

uint lane = thread_index_in_simdgroup;
uint simdgroup = simdgroup_index_in_threadgroup;
uint thread_index = thread_index_in_threadgroup;
int batch = int(threadgroup_position_in_grid.x);
auto row = logprobs + size_t(batch) * VOCABULARY;

// The largest.
float top = -INFINITY;
for (int i = int(thread_index); i < VOCABULARY; i += THREADS) {
  top = metal::max(top, present(static_cast<float>(row[i])));
}
top = metal::simd_max(top);
if (lane == 0) {
  room[simdgroup] = top;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
for (int g = 0; g < SIMDGROUPS; g++) {
  top = metal::max(top, room[g]);
}
threadgroup_barrier(mem_flags::mem_threadgroup);

// The lowest key that is kept.
uint lowest = ordered(top + log_min_p);
if (TOP_P) {
  float total = 0.0f;
  for (int i = int(thread_index); i < VOCABULARY; i += THREADS) {
    total += metal::precise::exp(present(static_cast<float>(row[i])) - top);
  }
  sum_over_group<1, SIMDGROUPS>(&total, room, lane, simdgroup);
  lowest = metal::max(lowest, threshold<decltype(row), VOCABULARY, THREADS, false>(
      row, top, top_p * total, room, thread_index, lane, simdgroup));
}

// Of the tokens equal to the last of the top_k, `places` are kept, those with the lower numbers.
int first = int(simdgroup) * SPAN;
int end = metal::min(first + SPAN, VOCABULARY);
uint last_key = 0;
float places = 0.0f;
float ties_before = 0.0f;
if (TOP_K) {
  last_key = threshold<decltype(row), VOCABULARY, THREADS, true>(
      row, top, top_k, room, thread_index, lane, simdgroup);
  float count[2] = {0.0f, 0.0f};
  for (int i = first + int(lane); i < end; i += 32) {
    uint key = ordered(present(static_cast<float>(row[i])));
    count[0] += key > last_key ? 1.0f : 0.0f;
    count[1] += key == last_key ? 1.0f : 0.0f;
  }
  float own_ties = metal::simd_sum(count[1]);
  if (lane == 0) {
    ties[simdgroup] = own_ties;
  }
  sum_over_group<2, SIMDGROUPS>(count, room, lane, simdgroup);
  places = top_k - count[0];
  for (int g = 0; g < SIMDGROUPS; g++) {
    ties_before += g < int(simdgroup) ? ties[g] : 0.0f;
  }
  lowest = metal::max(lowest, last_key);
}

// The weight of each span, then the one that the draw falls in, walked again.
float target = 0.0f;
for (int walk = 0; walk < 2; walk++) {
  float reached = 0.0f;
  float rank = ties_before;
  int drawn = -1;
  bool found = false;
  for (int base = first; base < end; base += 32) {
    int i = base + int(lane);
    float x = i < end ? present(static_cast<float>(row[i])) : -INFINITY;
    uint key = ordered(x);
    bool is_kept = x > -INFINITY && key >= lowest;
    if (TOP_K) {
      float tie = i < end && key == last_key ? 1.0f : 0.0f;
      float place = rank + metal::simd_prefix_exclusive_sum(tie);
      is_kept = is_kept && (key > last_key || place < places);
      rank += metal::simd_sum(tie);
    }
    float weight = is_kept ? metal::precise::exp((x - top) * inverse_temperature) : 0.0f;
    if (walk == 1) {
      float here = reached + metal::simd_prefix_inclusive_sum(weight);
      int crossed = weight > 0.0f && here > target ? i : VOCABULARY;
      int nearest = metal::simd_min(crossed);
      int latest = metal::simd_max(weight > 0.0f ? i : -1);
      if (!found) {
        drawn = nearest < VOCABULARY ? nearest : metal::max(drawn, latest);
      }
      found = found || nearest < VOCABULARY;
    }
    reached += metal::simd_sum(weight);
  }
  if (walk == 1) {
    if (lane == 0) {
      token[batch] = uint(metal::max(drawn, 0));  // 0 where there is nothing to draw from
    }
    break;
  }
  if (lane == 0) {
    spans[simdgroup] = reached;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float total = 0.0f;
  for (int g = 0; g < SIMDGROUPS; g++) {
    total += spans[g];
  }
  target = numbers[batch] * total;
  float before = 0.0f;
  float before_chosen = 0.0f;
  int chosen = 0;
  bool fallen = false;
  for (int g = 0; g < SIMDGROUPS; g++) {
    if (!fallen && spans[g] > 0.0f) {  // by rounding the last may have to do
      chosen = g;
      before_chosen = before;
      fallen = before + spans[g] > target;
    }
    before += spans[g];
  }
  if (chosen != int(simdgroup)) {
    break;
  }
  target -= before_chosen;
}
