// What clang's -fsanitize=thread and parts of =undefined call. Neither library is linked: these take their place.
#pragma once
#include "shadow.h"

#define HERE ((uint32_t)((uint8_t*)__builtin_return_address(0) - 1 - image))  // the caller, as an offset
#define HOOK(name, n, write, read) \
  void __tsan_##name##n(void* p) { touch({(uint8_t*)p, n, write, read, false, HERE}); }
#define HOOKS(n)                          \
  HOOK(read, n, false, true)              \
  HOOK(write, n, true, false)             \
  HOOK(read_write, n, true, true)         \
  HOOK(unaligned_read, n, false, true)    \
  HOOK(unaligned_write, n, true, false)   \
  HOOK(unaligned_read_write, n, true, true)

#define REPORT(kind, ...) \
  if (lane) report(kind, HERE, 0, __VA_ARGS__)
#define REPORT_AND_END(kind, ...) \
  if (lane) report(kind, HERE, 0, __VA_ARGS__), end_launch()
#define OVERFLOW_HOOK(name, sign)                                                   \
  void __ubsan_handle_##name##_overflow(void*, uintptr_t a, uintptr_t b) {           \
    REPORT("int_overflow", "%ld " sign " %ld overflows", (long)a, (long)b);         \
  }

extern "C" {
void __tsan_init() {}
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)

static void* copy(void* to, const void* from, size_t n, uint32_t where) {
  if (n) touch({(uint8_t*)from, (int)n, false, true, false, where});
  if (n) touch({(uint8_t*)to, (int)n, true, false, false, where});
  return memmove(to, from, n);
}
void* __tsan_memcpy(void* to, const void* from, size_t n) { return copy(to, from, n, HERE); }
void* __tsan_memmove(void* to, const void* from, size_t n) { return copy(to, from, n, HERE); }
void* __tsan_memset(void* to, int byte, size_t n) {
  if (n) touch({(uint8_t*)to, (int)n, true, false, false, HERE});
  return memset(to, byte, n);
}

OVERFLOW_HOOK(add, "+") OVERFLOW_HOOK(sub, "-") OVERFLOW_HOOK(mul, "*")
void __ubsan_handle_negate_overflow(void*, uintptr_t) { REPORT("int_overflow", "negation overflows"); }
void __ubsan_handle_float_cast_overflow(void*, uintptr_t) { REPORT("float_cast", "does not fit the integer type"); }
void __ubsan_handle_shift_out_of_bounds(void*, uintptr_t a, uintptr_t b) {
  REPORT("bad_shift", "shift of %ld by %ld", (long)a, (long)b);
}
void __ubsan_handle_out_of_bounds(void*, uintptr_t i) {
  REPORT_AND_END("index_out_of_bounds", "index %ld is outside the array's type", (long)i);
}
void __ubsan_handle_divrem_overflow(void*, uintptr_t, uintptr_t) {
  REPORT_AND_END("division", "division by zero or overflow");
}
void __ubsan_handle_type_mismatch_v1(void*, uintptr_t p) {
  REPORT(p ? "misaligned" : "null_pointer", "%s pointer", p ? "misaligned" : "null");
  if (lane && !p) end_launch();
}
void __ubsan_handle_builtin_unreachable(void*) { REPORT_AND_END("unreachable", "reached"); }

// compiler-rt's, which clang calls for bfloat; older libgcc has none.
__bf16 __truncsfbf2(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  uint16_t h = f != f ? (uint16_t)(b >> 16) | 0x40 : (uint16_t)((b + 0x7FFF + ((b >> 16) & 1)) >> 16);
  __bf16 r;
  memcpy(&r, &h, 2);
  return r;
}

// ---- what the shim calls
struct Bank { alignas(16) uint8_t values[SIMD * MAX_VALUE]; };
static Bank banks[SIMD][2];  // two a simdgroup: a lane may read one exchange while others deposit the next
static int current_bank[SIMD];

uint32_t msl_rt_exchange(int site, const char* op, const void* value, int size, void* all) {
  settle();
  Lane* me = lane;
  me->state = IN_SIMD, me->site = site, me->op = op, me->size = size;
  memcpy(me->deposit, value, size);
  pause_lane();
  memcpy(all, banks[(me - lanes) / SIMD][me->bank].values, SIMD * size);
  return me->mask;
}

void msl_rt_barrier(int site, int scope, int flags) {
  settle();
  lane->state = scope ? AT_GROUP_BARRIER : AT_SIMD_BARRIER, lane->site = site, lane->flags = flags;
  pause_lane();
}

void msl_rt_atomic(const volatile void* p, int n, int site, int kind) {  // kind: 0 load, 1 store, 2 both
  if (launch->check) touch({(uint8_t*)p, n, kind != 0, kind != 1, true, (uint32_t)site | SITE});
}

void msl_rt_threadgroup_variable(void* p, uint64_t size, const char* name) {
  for (int i = 0; i < region_count; i++)
    if (regions[i].start == p) return;
  if (region_count == MAX_REGIONS) return;
  Region& r = regions[region_count++];
  r = Region{(uint8_t*)p, (uint8_t*)p + size, name, WRITABLE, 0, (Cell*)calloc(size, sizeof(Cell)), true, 0, 0};
  for (uint8_t* q = r.start; q < r.end; q += 16) threadgroup_map[(q - threadgroup_start) >> 4] = region_count;
  launch->threadgroup_bytes += (size + 15) & ~15ull;
}

void msl_rt_fail(int site, const char* kind, const char* message) { report(kind, site | SITE, 0, "%s", message); }

int msl_rt_lane() { return lane_index() % SIMD; }

float msl_rt_inexact(float exact, int ulps) {  // fast:: functions may differ by so much
  if (!launch->fast_ulps || exact != exact || exact == 0 || __builtin_isinf(exact)) return exact;
  int width = ulps * (int)launch->fast_ulps;
  uint32_t bits;
  memcpy(&bits, &exact, 4);
  bits += (int)(random_bits() % (2 * width + 1)) - width;
  memcpy(&exact, &bits, 4);
  return exact;
}
}
