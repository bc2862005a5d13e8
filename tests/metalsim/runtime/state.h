// The one launch that runs: its lanes, its threadgroup, its findings.
#pragma once
#include <stdarg.h>
#include <stdio.h>

#include "abi.h"
#include "fiber.h"

enum State { READY, IN_SIMD, AT_SIMD_BARRIER, AT_GROUP_BARRIER, DONE };
static const size_t STACK = 256 << 10;
static const int MAX_LANES = 1024, SIMD = 32, MAX_VALUE = 64;

struct Lane {
  void* sp;
  uint8_t* stack;
  State state;
  int site, flags;  // of what it waits for
  const char* op;
  int size, bank;   // of its deposit, and where the others' lie
  uint32_t mask;    // the lanes that took part
  alignas(16) uint8_t deposit[MAX_VALUE];
  MslAttributes attributes;
};

static MslLaunch* launch;
static Lane lanes[MAX_LANES];
static Lane* lane;  // the one that runs, or none
static void* scheduler;
static uint8_t *stacks, *image, *image_end;
static uint32_t group, group_lanes, simdgroups;  // group counts from 1
static bool fatal;
static uint32_t generator;

static uint32_t random_bits() {
  generator ^= generator << 13;
  generator ^= generator >> 17;
  return generator ^= generator << 5;
}

static int lane_index() { return lane ? (int)(lane - lanes) : -1; }

static void pause_lane() { msl_switch(&lane->sp, scheduler); }

static void end_launch() {
  fatal = true;
  pause_lane();
  __builtin_unreachable();
}

// ---- findings: one line each; where is an offset in the image, or a site with the high bit set
static const uint32_t SITE = 0x80000000u;
static struct Seen { const char* kind; uint32_t where, other; } seen[256];
static uint32_t seen_count;

static bool seen_before(const char* kind, uint32_t where, uint32_t other) {
  for (uint32_t i = 0; i < seen_count; i++)
    if (seen[i].kind == kind && seen[i].where == where && seen[i].other == other) return true;
  if (seen_count < 256) seen[seen_count++] = Seen{kind, where, other};
  return false;
}

static void report(const char* kind, uint32_t where, uint32_t other, const char* format, ...) {
  if (seen_before(kind, where, other) || seen_count > launch->max_reports) return;
  char message[400];
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof message, format, values);
  va_end(values);
  size_t used = strlen(launch->report);
  snprintf(launch->report + used, launch->report_size - used, "%s\t%u\t%u\t%d\t%u\t%s\n", kind, where, other,
           lane_index(), group ? group - 1 : 0, message);
}
