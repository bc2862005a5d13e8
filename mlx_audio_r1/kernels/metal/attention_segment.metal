// One threadgroup: one split of the tokens, one kv head of one row of the cache, and at most NSG * SLOTS of the
// query rows that read it. Its tokens come in tiles into threadgroup memory, in float; every simdgroup then holds
// them against its own SLOTS query rows. Lane n has the dimensions n, n + 32, ...
constexpr int E = D / 32;
uint lane = thread_index_in_simdgroup, sg = simdgroup_index_in_threadgroup;
int split = threadgroup_position_in_grid.x, splits = threadgroups_per_grid.x;
int head = threadgroup_position_in_grid.y, heads = threadgroups_per_grid.y;
int cache_row = threadgroup_position_in_grid.z / blocks, block = threadgroup_position_in_grid.z % blocks;
int begin = max(padding[cache_row * padding_strides[0]], split * per_split);
int end = min(tokens, (split + 1) * per_split);

float q[SLOTS][E], o[SLOTS][E], top[SLOTS], sum[SLOTS];
int last[SLOTS];   // the last token that a query row sees
int target[SLOTS];  // where its result goes; below 0: a slot without a row
for (int i = 0; i < SLOTS; i++) {
    int j = (block * NSG + int(sg)) * SLOTS + i;
    int b = cache_row + j / (G * L), h = head * G + j / L % G, l = j % L;
    top[i] = Limits<float>::finite_min;  // and not -INFINITY: that less a score of -inf is no number
    sum[i] = 0.0f;
    last[i] = -1;
    target[i] = -1;
    if (j < rows) {
        last[i] = CAUSAL ? tokens - L + l : tokens;
        target[i] = ((b * heads * G + h) * L + l) * splits + split;
    }
    for (int e = 0; e < E; e++) {
        o[i][e] = 0.0f;
        q[i][e] = 0.0f;
        if (j < rows) {
            q[i][e] = scale * static_cast<float>(queries[b * queries_strides[0] + h * queries_strides[1] +
                                                         l * queries_strides[2] + (lane + 32 * e) * queries_strides[3]]);
        }
    }
}

threadgroup float keys[TILE * D];
threadgroup float values[TILE * D];
for (int t = begin; t < end; t += TILE) {
    int count = min(TILE, end - t);
#if QUANTISED
    constexpr int PER = 32 / BITS;       // values in a word
    constexpr int WORDS = D / PER;       // words of a token
    constexpr int SHARE = GROUP / PER;   // words, and so neighbouring lanes, that share a scale and a bias
    for (int first = int(sg) * 32; first < TILE * WORDS; first += NSG * 32) {
        int i = first + int(lane), token = i / WORDS, word = i % WORDS, group = word / SHARE;
        uint k_word = 0, v_word = 0;
        float k_scale = 0.0f, k_bias = 0.0f, v_scale = 0.0f, v_bias = 0.0f;
        if (token < count) {
            k_word = k[cache_row * k_strides[0] + head * k_strides[1] + (t + token) * k_strides[2] +
                       word * k_strides[3]];
            v_word = v[cache_row * v_strides[0] + head * v_strides[1] + (t + token) * v_strides[2] +
                       word * v_strides[3]];
        }
        uint leader = lane - lane % SHARE;
        if (token < count && lane == leader) {  // read once, handed round
            k_scale = static_cast<float>(k_scales[cache_row * k_scales_strides[0] + head * k_scales_strides[1] +
                                                  (t + token) * k_scales_strides[2] + group * k_scales_strides[3]]);
            k_bias = static_cast<float>(k_biases[cache_row * k_biases_strides[0] + head * k_biases_strides[1] +
                                                 (t + token) * k_biases_strides[2] + group * k_biases_strides[3]]);
            v_scale = static_cast<float>(v_scales[cache_row * v_scales_strides[0] + head * v_scales_strides[1] +
                                                  (t + token) * v_scales_strides[2] + group * v_scales_strides[3]]);
            v_bias = static_cast<float>(v_biases[cache_row * v_biases_strides[0] + head * v_biases_strides[1] +
                                                 (t + token) * v_biases_strides[2] + group * v_biases_strides[3]]);
        }
        k_scale = simd_shuffle(k_scale, leader);
        k_bias = simd_shuffle(k_bias, leader);
        v_scale = simd_shuffle(v_scale, leader);
        v_bias = simd_shuffle(v_bias, leader);
        if (token < count) {
            for (int n = 0; n < PER; n++) {
                keys[i * PER + n] = float((k_word >> (BITS * n)) & ((1u << BITS) - 1)) * k_scale + k_bias;
                values[i * PER + n] = float((v_word >> (BITS * n)) & ((1u << BITS) - 1)) * v_scale + v_bias;
            }
        }
    }
#else
    for (int i = int(sg * 32 + lane); i < count * D; i += NSG * 32) {
        int token = i / D, d = i % D;
        keys[i] = static_cast<float>(k[cache_row * k_strides[0] + head * k_strides[1] +
                                       (t + token) * k_strides[2] + d * k_strides[3]]);
        values[i] = static_cast<float>(v[cache_row * v_strides[0] + head * v_strides[1] +
                                         (t + token) * v_strides[2] + d * v_strides[3]]);
    }
#endif
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int token = 0; token < count; token++) {
        float key[E], value[E];
        for (int e = 0; e < E; e++) {
            key[e] = keys[token * D + int(lane) + 32 * e];
            value[e] = values[token * D + int(lane) + 32 * e];
        }
        for (int i = 0; i < SLOTS; i++) {
            if (t + token <= last[i]) {
                float score = 0.0f;
                for (int e = 0; e < E; e++) {
                    score += q[i][e] * key[e];
                }
                score = simd_sum(score);
                float higher = max(top[i], score);
                float fade = metal::exp(top[i] - higher), weight = metal::exp(score - higher);
                top[i] = higher;
                sum[i] = sum[i] * fade + weight;
                for (int e = 0; e < E; e++) {
                    o[i][e] = o[i][e] * fade + weight * value[e];
                }
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

for (int i = 0; i < SLOTS; i++) {
    if (target[i] >= 0) {
        bool any = sum[i] != 0.0f;  // as when it is no number, which must be seen
        for (int e = 0; e < E; e++) {
            parts[size_t(target[i]) * D + lane + 32 * e] = static_cast<OUT>(any ? o[i][e] / sum[i] : 0.0f);
        }
        if (lane == 0) {
            lse[target[i]] = any ? top[i] + metal::log(sum[i]) : -INFINITY;
        }
    }
}
