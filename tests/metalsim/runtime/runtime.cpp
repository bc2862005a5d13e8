// Runs one Metal compute launch on one CPU thread. A fatal finding ends the launch, never the process.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

#include "schedule.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

// ---- what no hook saw: a wild access of the runtime's, a trap of the compiler's, a full stack, an endless loop
static const int SIGNALS[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGVTALRM}, SIGNAL_COUNT = 5;
static struct sigaction previous[SIGNAL_COUNT];
static stack_t previous_stack;
static sigjmp_buf escape;
static uintptr_t interrupted;

static void on_signal(int signal, siginfo_t*, void* context) {
#if defined(__x86_64__)
  interrupted = ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  interrupted = ((ucontext_t*)context)->uc_mcontext.pc;
#endif
  siglongjmp(escape, signal);
}

static void arm() {
  static uint8_t alternate[64 << 10];
  stack_t stack = {alternate, 0, sizeof alternate};
  sigaltstack(&stack, &previous_stack);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &action, &previous[i]);
  itimerval limit = {{0, 0}, {(long)launch->max_seconds, 0}};
  setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}

static void disarm() {
  itimerval off = {};
  setitimer(ITIMER_VIRTUAL, &off, nullptr);
  for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &previous[i], nullptr);
  sigaltstack(&previous_stack, nullptr);
}

static void report_signal(int signal) {
  bool inside = within((uint8_t*)interrupted, image, image_end);
  uint32_t where = inside ? (uint32_t)(interrupted - (uintptr_t)image) : 0;
  if (signal == SIGVTALRM) report("runaway", where, 0, "more than %u seconds", launch->max_seconds);
  else if (signal == SIGSEGV || signal == SIGBUS) report("crash", where, 0, "wild access or full private stack");
  else report("crash", where, 0, "signal %d: code the compiler took as unreachable", signal);
}

// ---- memory
static void make_stacks() {
  if (stacks) return;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  stacks = (uint8_t*)mmap(nullptr, STACK * MAX_LANES, PROT_READ | PROT_WRITE, flags, -1, 0);
  for (int i = 0; i < MAX_LANES; i++) {
    lanes[i].stack = stacks + i * STACK;
    mprotect(lanes[i].stack, 4096, PROT_NONE);
  }
}

static void add_buffer(const MslBuffer& b) {
  Region& r = regions[region_count++];
  int shift = __builtin_ctz(b.granule);
  r = Region{b.start, b.start + b.size, b.name, b.flags, shift, nullptr, false, 0, 0};
  if (launch->check && (b.flags & WRITABLE)) r.cells = (Cell*)calloc((b.size >> shift) + 1, sizeof(Cell));
  uint64_t offset = b.start - launch->arena, first = offset >> 12, last = (offset + (b.size ? b.size - 1 : 0)) >> 12;
  for (uint64_t page = first; page <= last; page++) page_map[page] = region_count;
}

static void prepare(MslLaunch* next) {
  launch = next;
  lane = nullptr;
  fatal = rewrite.pending = false;
  seen_count = group = region_count = 0;
  generator = launch->seed * 2654435761u + 1;
  make_stacks();
  uint8_t* bounds[4];
  launch->ranges(bounds);
  threadgroup_start = bounds[0], threadgroup_end = bounds[1], image = bounds[2], image_end = bounds[3];
  memset(threadgroup_map, 0, sizeof threadgroup_map);
  page_map = (uint8_t*)calloc(launch->arena_size / 4096 + 1, 1);
  for (uint64_t i = 0; i < launch->buffer_count; i++) add_buffer(launch->buffers[i]);
}

static void report_unwritten(const Region& r) {
  uint64_t cells = (r.end - r.start + (1ull << r.shift) - 1) >> r.shift, missing = 0, first = 0;
  for (uint64_t i = cells; i-- > 0;)
    if (!r.cells[i].write.kind) missing++, first = i;
  if (!missing) return;
  group = 0;
  report("unwritten_output", 0, &r - regions + 1, "%lu of %lu bytes of %s never written, the first at byte %lu",
         (unsigned long)(missing << r.shift), (unsigned long)(r.end - r.start), r.name,
         (unsigned long)(first << r.shift));
}

static void finish() {
  for (uint64_t i = 0; i < launch->buffer_count; i++) {
    launch->buffers[i].bytes_read = regions[i].bytes_read;
    launch->buffers[i].bytes_written = regions[i].bytes_written;
  }
  for (Region* r = regions; r < regions + region_count; r++) {
    if (r->cells && !r->threadgroup && !(r->flags & INITIALISED) && !fatal) report_unwritten(*r);
    free(r->cells);
  }
  free(page_map);
}

// ---- the grid
struct Size { uint32_t v[3]; uint32_t volume() const { return v[0] * v[1] * v[2]; } };

static void set_attributes(uint32_t i, Size at, Size size, Size full, Size groups) {
  MslAttributes& a = lanes[i].attributes;
  uint32_t within_group[3] = {i % size.v[0], i / size.v[0] % size.v[1], i / size.v[0] / size.v[1]};
  for (int d = 0; d < 3; d++) {
    a.thread_position_in_threadgroup[d] = within_group[d];
    a.thread_position_in_grid[d] = at.v[d] * full.v[d] + within_group[d];
    a.threadgroup_position_in_grid[d] = at.v[d];
    a.threads_per_threadgroup[d] = size.v[d];
    a.dispatch_threads_per_threadgroup[d] = full.v[d];
    a.threadgroups_per_grid[d] = groups.v[d];
    a.threads_per_grid[d] = a.grid_size[d] = launch->grid[d];
    a.grid_origin[d] = 0;
  }
  a.thread_index_in_threadgroup = i;
  a.simdgroup_index_in_threadgroup = i / SIMD, a.thread_index_in_simdgroup = i % SIMD;
  a.quadgroup_index_in_threadgroup = i / 4, a.thread_index_in_quadgroup = i % 4;
  a.simdgroups_per_threadgroup = simdgroups, a.quadgroups_per_threadgroup = (group_lanes + 3) / 4;
  a.dispatch_simdgroups_per_threadgroup = (full.volume() + SIMD - 1) / SIMD;
  a.dispatch_quadgroups_per_threadgroup = (full.volume() + 3) / 4;
  a.threads_per_simdgroup = a.thread_execution_width = SIMD;
}

static void run_group_at(uint32_t k, Size full, Size groups) {
  Size at = {{k % groups.v[0], k / groups.v[0] % groups.v[1], k / groups.v[0] / groups.v[1]}}, size;
  for (int d = 0; d < 3; d++) {  // groups at the edge of the grid are smaller
    uint32_t left = launch->grid[d] - at.v[d] * full.v[d];
    size.v[d] = left < full.v[d] ? left : full.v[d];
  }
  group = k + 1, group_lanes = size.volume(), simdgroups = (group_lanes + SIMD - 1) / SIMD;
  for (uint32_t i = 0; i < group_lanes; i++) set_attributes(i, at, size, full, groups);
  run_group();
}

static uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

static void run_grid() {
  Size full, groups;
  for (int d = 0; d < 3; d++) {
    full.v[d] = launch->threadgroup[d] < launch->grid[d] ? launch->threadgroup[d] : launch->grid[d];
    groups.v[d] = (launch->grid[d] + full.v[d] - 1) / full.v[d];
  }
  uint64_t count = groups.volume(), stride = 1;
  if (launch->order == RANDOM && count > 2)
    for (stride = random_bits() % count | 1; common_divisor(stride, count) != 1;) stride += 2;
  for (uint64_t j = 0; j < count && !fatal; j++)
    run_group_at(launch->order == REVERSE ? count - 1 - j : j * stride % count, full, groups);
}

static unsigned float_mode() {
#if defined(__x86_64__)
  unsigned before = _mm_getcsr();
  if (launch->flush_denormals) _mm_setcsr(before | 0x8040);
  return before;
#else
  return 0;
#endif
}

extern "C" int msl_launch(MslLaunch* next) {
  prepare(next);
  unsigned before = float_mode();
  arm();
  if (int signal = sigsetjmp(escape, 1)) {
    report_signal(signal);
    fatal = true;
  } else {
    run_grid();
  }
  disarm();
#if defined(__x86_64__)
  _mm_setcsr(before);
#endif
  lane = nullptr;
  finish();
  return fatal;
}
