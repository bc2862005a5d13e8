// What the launcher (launch.py), the kernels and the runtime agree on.
#pragma once
#include <stdint.h>

extern "C" {
// What the [[...]] parameters of a kernel can ask for.
struct MslAttributes {
  uint32_t dispatch_threads_per_threadgroup[3], grid_origin[3], grid_size[3], thread_position_in_grid[3];
  uint32_t thread_position_in_threadgroup[3], threadgroup_position_in_grid[3], threadgroups_per_grid[3];
  uint32_t threads_per_grid[3], threads_per_threadgroup[3];
  uint32_t dispatch_quadgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup;
  uint32_t quadgroup_index_in_threadgroup, quadgroups_per_threadgroup, simdgroup_index_in_threadgroup;
  uint32_t simdgroups_per_threadgroup, thread_execution_width, thread_index_in_quadgroup;
  uint32_t thread_index_in_simdgroup, thread_index_in_threadgroup, threads_per_simdgroup;
};

struct MslBuffer {
  uint8_t* start;
  uint64_t size;
  uint32_t flags, granule;  // bytes that share one shadow cell
  const char* name;
  uint64_t bytes_read, bytes_written;  // results
};

struct MslLaunch {
  void (*entry)(void** buffers, const MslAttributes*);
  void (*ranges)(uint8_t** four);  // the threadgroup section, then the kernel's image
  MslBuffer* buffers;
  uint64_t buffer_count;
  void** arguments;
  uint8_t* arena;
  uint64_t arena_size;
  uint32_t grid[3], threadgroup[3];
  uint32_t order, seed, flush_denormals, fast_ulps, check, max_reports, max_seconds, unused;
  uint64_t max_steps;
  char* report;
  uint64_t report_size;
  uint64_t steps, accesses, threadgroup_bytes, repeated_writes;  // results
};

// What the shim msl/ calls. A site is line * 512 + column.
uint32_t msl_rt_exchange(int site, const char* op, const void* value, int size, void* all32)
    __attribute__((convergent));
void msl_rt_barrier(int site, int scope, int flags) __attribute__((convergent));
void msl_rt_atomic(const volatile void* p, int size, int site, int kind);
void msl_rt_threadgroup_variable(void* p, uint64_t size, const char* name);
void msl_rt_fail(int site, const char* kind, const char* message);
int msl_rt_lane(void);
float msl_rt_inexact(float exact, int ulps);

int msl_launch(MslLaunch*);
}
