// Takes `count` parts of one query row into its running sum, 32 at a time: lane n has the weight of part n.
template <int D, typename Parts, typename Lse>
inline void take_in(Parts parts, Lse lse, int count, int row, uint lane,
                    thread float& top, thread float& sum, thread float (&o)[D / 32]) {
    for (int first = 0; first < count; first += 32) {
        int own = first + int(lane), here = min(32, count - first);
        float mine = own < count ? static_cast<float>(lse[row * count + own]) : -INFINITY;
        float higher = max(top, simd_max(mine));
        float weight = mine == -INFINITY ? 0.0f : metal::exp(mine - higher);  // -inf less -inf is no number
        float fade = top == -INFINITY ? 0.0f : metal::exp(top - higher);
        top = higher;
        sum = sum * fade + simd_sum(weight);
        for (int e = 0; e < D / 32; e++) {
            o[e] *= fade;
        }
        for (int n = 0; n < here; n++) {
            float share = simd_shuffle(weight, n);
            for (int e = 0; e < D / 32; e++) {
                o[e] += share * parts[(size_t(row) * count + first + n) * D + lane + 32 * e];
            }
        }
    }
}

// body
// One simdgroup: one query row.
uint lane = thread_index_in_simdgroup;
int row = thread_position_in_grid.x / 32;
float top = -INFINITY, sum = 0.0f, o[D / 32];
for (int e = 0; e < D / 32; e++) {
    o[e] = 0.0f;
}
take_in<D>(one, one_lse, one_count, row, lane, top, sum, o);
take_in<D>(two, two_lse, two_count, row, lane, top, sum, o);
for (int e = 0; e < D / 32; e++) {
    out[size_t(row) * D + lane + 32 * e] = static_cast<OUT>(sum != 0.0f ? o[e] / sum : 0.0f);
}
if (lane == 0) {
    lse[row] = sum != 0.0f ? top + metal::log(sum) : -INFINITY;
}
