// A pair of values into its place in (B, heads, L, D).
template <typename T>
void put(device T* out, size_t at, int half_dims, float first, float second) {
  out[at] = static_cast<T>(first);
  out[at + half_dims] = static_cast<T>(second);
}

// body
constexpr int HALF = DIMS / 2;
int head = int(thread_position_in_grid.x) / HALF;
int pair = int(thread_position_in_grid.x) % HALF;
int row = int(thread_position_in_grid.y);
int batch = row / length;
int position = row % length;

int column = head * DIMS + pair;
size_t from = size_t(row) * ((HEADS + 2 * KV_HEADS) * DIMS) + column;
float first = static_cast<float>(static_cast<T>(qkv[from] + bias[column]));
float second = static_cast<float>(static_cast<T>(qkv[from + HALF] + bias[column + HALF]));

if (head < HEADS + KV_HEADS) {
  float at = float(offset[batch] + position), frequency = frequencies[pair];
  float angle = at * frequency;
  float rest = metal::fma(at, frequency, -angle) + at * frequencies[HALF + pair];  // what rounding took from it
  float near = 1.0f - 0.5f * rest * rest;
  float cosine = metal::precise::cos(angle), sine = metal::precise::sin(angle);
  float c = cosine * near - sine * rest;
  float s = sine * near + cosine * rest;
  float turned = first * c - second * s;
  second = first * s + second * c;
  first = turned;
}

if (head < HEADS) {
  put(queries, (size_t(batch * HEADS + head) * length + position) * DIMS + pair, HALF, first, second);
} else if (head < HEADS + KV_HEADS) {
  int own = head - HEADS;
  put(keys, (size_t(batch * KV_HEADS + own) * length + position) * DIMS + pair, HALF, first, second);
} else {
  int own = head - HEADS - KV_HEADS;
  put(values, (size_t(batch * KV_HEADS + own) * length + position) * DIMS + pair, HALF, first, second);
}
