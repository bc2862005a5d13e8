// body
uint column = thread_position_in_grid.x;
uint row = thread_position_in_grid.y;
size_t at = size_t(row) * threads_per_grid.x + column;
float value = static_cast<float>(logits[at]);
float gradient = 0.0f;
if (value != -INFINITY) {
  float log_p = (value - top[row]) - log_below[row];
  float slope = d_log_sum[row] - d_logprob[row] - d_entropy[row] * (log_p + entropy[row]);
  gradient = metal::precise::exp(log_p) * slope;
}
if (column == uint(targets[row])) {
  gradient += d_logprob[row];
}
d_logits[at] = static_cast<T>(gradient);
