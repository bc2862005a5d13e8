#include <metal_simdgroup_matrix>
using namespace metal;

// A tile's rows of one head in float, noughts behind the last of them.
template <int D, int TILE, typename Source>
inline void take(Source source, threadgroup float* rows, int first, int end, int head, int heads, float scale,
                 int thread_index) {
  for (int i = thread_index; i < TILE * D; i += 4 * TILE) {
    int row = first + i / D;
    float value = 0.0f;
    if (row < end) {
      value = scale * static_cast<float>(source[(size_t(row) * heads + head) * D + i % D]);
    }
    rows[i] = value;
  }
}

// body
// One threadgroup: TILE query rows of one head of one clip, eight of them to a simdgroup, against all the keys
// and values that the clip shows, TILE at a time.
constexpr int BLOCKS = D / 8;     // matrices across a head
constexpr int TILES = TILE / 8;   // matrices down a tile, and simdgroups
constexpr int PER_LANE = TILE / 4;
threadgroup float rows[TILE * D];  // the queries, then keys and values in turns, then the result
threadgroup float scores[TILE * TILE];
threadgroup float fades[TILE * 8];  // a diagonal matrix for each simdgroup

int thread_index = int(thread_index_in_threadgroup);
int lane = int(thread_index_in_simdgroup), own = int(simdgroup_index_in_threadgroup) * 8;
int head = int(threadgroup_position_in_grid.y), heads = int(threadgroups_per_grid.y);
int tile = int(threadgroup_position_in_grid.x) * 4;
int first = tiles[tile], last = tiles[tile + 1], key_begin = tiles[tile + 2], key_end = tiles[tile + 3];

take<D, TILE>(queries, rows, first, last, head, heads, scale, thread_index);
threadgroup_barrier(mem_flags::mem_threadgroup);
simdgroup_float8x8 query[BLOCKS], result[BLOCKS];
for (int b = 0; b < BLOCKS; b++) {
  simdgroup_load(query[b], rows + own * D + 8 * b, D);
  result[b] = simdgroup_float8x8(0.0f);
}

int row = own + lane / 4;  // four lanes share a row of scores
float top = -INFINITY, sum = 0.0f;
for (int t = key_begin; t < key_end; t += TILE) {
  int count = min(TILE, key_end - t);
  threadgroup_barrier(mem_flags::mem_threadgroup);  // what the tile held is read
  take<D, TILE>(keys, rows, t, key_end, head, heads, 1.0f, thread_index);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int k = 0; k < TILES; k++) {
    simdgroup_float8x8 score = simdgroup_float8x8(0.0f), key, part;
    for (int b = 0; b < BLOCKS; b++) {
      simdgroup_load(key, rows + 8 * k * D + 8 * b, D, ulong2(0, 0), true);
      simdgroup_multiply(part, query[b], key);
      for (int e = 0; e < 2; e++) {
        score.thread_elements()[e] += part.thread_elements()[e];  // added apart: rounds less than one long sum
      }
    }
    simdgroup_store(score, scores + own * TILE + 8 * k, TILE);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  take<D, TILE>(values, rows, t, key_end, head, heads, 1.0f, thread_index);

  float higher = top;
  for (int j = 0; j < PER_LANE; j++) {
    int column = 4 * j + lane % 4;
    if (column < count) {
      higher = max(higher, scores[row * TILE + column]);
    }
  }
  higher = max(higher, simd_shuffle_xor(higher, 1));
  higher = max(higher, simd_shuffle_xor(higher, 2));
  float fade = metal::exp(top - higher), share = 0.0f;
  for (int j = 0; j < PER_LANE; j++) {
    int column = 4 * j + lane % 4;
    float weight = column < count ? metal::exp(scores[row * TILE + column] - higher) : 0.0f;
    scores[row * TILE + column] = weight;
    share += weight;
  }
  share += simd_shuffle_xor(share, 1);
  share += simd_shuffle_xor(share, 2);
  top = higher;
  sum = sum * fade + share;
  for (int j = 0; j < 2; j++) {
    int column = 2 * (lane % 4) + j;
    fades[row * 8 + column] = column == lane / 4 ? fade : 0.0f;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  simdgroup_float8x8 faded, weights[TILES], value;
  simdgroup_load(faded, fades + own * 8, 8);
  for (int k = 0; k < TILES; k++) {
    simdgroup_load(weights[k], scores + own * TILE + 8 * k, TILE);
  }
  for (int b = 0; b < BLOCKS; b++) {
    simdgroup_float8x8 before = result[b], added = simdgroup_float8x8(0.0f);  // summed apart: rounds less
    for (int k = 0; k < TILES; k++) {
      simdgroup_load(value, rows + 8 * k * D + 8 * b, D);
      simdgroup_multiply_accumulate(added, weights[k], value, added);
    }
    simdgroup_multiply_accumulate(result[b], faded, before, added);
  }
}

threadgroup_barrier(mem_flags::mem_threadgroup);
for (int b = 0; b < BLOCKS; b++) {
  simdgroup_store(result[b], rows + own * D + 8 * b, D);
}
simdgroup_barrier(mem_flags::mem_threadgroup);
for (int r = 0; r < 8; r++) {
  float total = simd_shuffle(sum, ushort(4 * r));
  int to = first + own + r;
  if (to < last) {
    for (int d = lane; d < D; d += 32) {
      out[(size_t(to) * heads + head) * D + d] = static_cast<T>(rows[(own + r) * D + d] / total);
    }
  }
}
