// Runs the lanes of a threadgroup: each simdgroup as far as it gets, then the barrier they all wait at.
#pragma once
#include "hooks.h"

enum { FORWARD, REVERSE, RANDOM };

// Lanes of a simdgroup by what they wait for; lead: of those in a SIMD function, the first in the text.
struct Waiting { uint32_t simd, simd_barrier, group_barrier, done; Lane* lead; };

static void run_fiber() {
  launch->entry(launch->arguments, &lane->attributes);
  settle();
  lane->state = DONE;
  pause_lane();
  __builtin_unreachable();
}

static void resume(Lane& next) {
  lane = &next;
  lane->state = READY;
  msl_switch(&scheduler, next.sp);
  lane = nullptr;
  launch->steps++;
}

static bool run_ready(Lane* first, uint32_t count) {
  bool ran = false;
  uint32_t start = launch->order == RANDOM ? random_bits() % count : 0;
  uint32_t stride = launch->order == RANDOM && count == SIMD ? random_bits() | 1 : 1;
  for (uint32_t q = 0; q < count && !fatal; q++) {
    Lane& l = first[launch->order == REVERSE ? count - 1 - q : (start + q * stride) % count];
    if (l.state != READY) continue;
    resume(l);
    ran = true;
  }
  if (launch->steps > launch->max_steps) {
    report("runaway", 0, 0, "more than %lu lane steps", (unsigned long)launch->max_steps);
    fatal = true;
  }
  return ran;
}

static Waiting look(Lane* first, uint32_t count) {
  Waiting w = {};
  for (uint32_t i = 0; i < count; i++) {
    Lane& l = first[i];
    uint32_t bit = 1u << i;
    if (l.state == IN_SIMD) w.simd |= bit;
    else if (l.state == AT_SIMD_BARRIER) w.simd_barrier |= bit;
    else if (l.state == AT_GROUP_BARRIER) w.group_barrier |= bit;
    else w.done |= bit;
    if (l.state == IN_SIMD && (!w.lead || l.site < w.lead->site)) w.lead = &l;
  }
  return w;
}

static void exchange(int simdgroup, Lane* first, uint32_t mask, int size) {
  int bank = current_bank[simdgroup] ^= 1;
  uint8_t* values = banks[simdgroup][bank].values;
  memset(values, 0xFF, SIMD * size);
  for (int i = 0; i < SIMD; i++) {
    if (!(mask >> i & 1)) continue;
    Lane& l = first[i];
    memcpy(values + i * size, l.deposit, size);
    l.state = READY, l.mask = mask, l.bank = bank;
  }
}

static void meet_in_simd(int simdgroup, Lane* first, uint32_t count, const Waiting& w) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < count; i++) {
    Lane& l = first[i];
    if (l.state == IN_SIMD && l.site == w.lead->site && l.op == w.lead->op) mask |= 1u << i;
  }
  uint32_t elsewhere = (w.simd | w.simd_barrier | w.group_barrier) & ~mask, where = w.lead->site | SITE;
  if (elsewhere)
    report("divergent_simd", where, 0, "%s by lanes %08x of simdgroup %d while %08x are elsewhere, %08x returned",
           w.lead->op, mask, simdgroup, elsewhere, w.done);
  else if (w.done)
    report("partial_simd", where, 0, "%s with %d lanes of simdgroup %d gone", w.lead->op,
           __builtin_popcount(w.done), simdgroup);
  exchange(simdgroup, first, mask, w.lead->size);
}

static void pass_simd_barrier(int simdgroup, Lane* first, uint32_t count, const Waiting& w) {
  Lane* one = nullptr;
  for (uint32_t i = 0; i < count; i++) {
    Lane& l = first[i];
    if (l.state != AT_SIMD_BARRIER) continue;
    if (one && one->site != l.site)
      report("divergent_barrier", l.site | SITE, 0, "simdgroup %d waits at two simdgroup_barriers", simdgroup);
    one = &l;
    l.state = READY;
  }
  const char* elsewhere = w.group_barrier ? "wait at threadgroup_barrier" : w.done ? "returned" : nullptr;
  if (elsewhere)
    report("divergent_barrier", one->site | SITE, 0, "simdgroup_barrier of simdgroup %d while other lanes of it %s",
           simdgroup, elsewhere);
  if (w.group_barrier) return;
  simd_fences[0][simdgroup] += one->flags & 1;
  simd_fences[1][simdgroup] += one->flags >> 1 & 1;
}

// As far as this simdgroup gets on its own: to a threadgroup barrier or to the end.
static bool run_simdgroup(int simdgroup) {
  Lane* first = &lanes[simdgroup * SIMD];
  uint32_t left = group_lanes - simdgroup * SIMD, count = left < SIMD ? left : SIMD;
  for (bool progress = false;; progress = true) {
    bool ran = run_ready(first, count);
    if (fatal) return true;
    Waiting w = look(first, count);
    if (w.simd) meet_in_simd(simdgroup, first, count, w);
    else if (w.simd_barrier) pass_simd_barrier(simdgroup, first, count, w);
    else return progress || ran;
  }
}

// False when every lane has returned.
static bool pass_group_barrier(bool progress) {
  Lane* one = nullptr;
  uint32_t waiting = 0;
  for (Lane* l = lanes; l < lanes + group_lanes; l++) {
    if (l->state == DONE) continue;
    waiting++;
    if (one && one->site != l->site)
      report("divergent_barrier", one->site | SITE, l->site | SITE, "threads wait at two threadgroup_barriers");
    if (!one) one = l;
    if (l->state == AT_GROUP_BARRIER) l->state = READY;
  }
  if (!one) return false;
  uint32_t where = one->site | SITE;
  if (waiting < group_lanes)
    report("divergent_barrier", where, 0, "threadgroup_barrier reached by %u of %u threads: the others returned",
           waiting, group_lanes);
  fences[0] += one->flags & 1;
  fences[1] += one->flags >> 1 & 1;
  barriers++;
  if (!progress) report("deadlock", where, 0, "no lane can go on"), fatal = true;
  return !fatal;
}

static void reset_group() {
  barriers = fences[0] = fences[1] = 1;
  memset(simd_fences, 0, sizeof simd_fences);
  if (threadgroup_end > threadgroup_start) memset(threadgroup_start, 0xFF, threadgroup_end - threadgroup_start);
  for (Lane* l = lanes; l < lanes + group_lanes; l++) {
    l->sp = fresh_stack(l->stack + STACK, run_fiber);
    l->state = READY;
  }
}

static void shuffle(uint32_t* items, uint32_t count) {
  for (uint32_t i = count - 1; i > 0; i--) {
    uint32_t j = random_bits() % (i + 1), item = items[i];
    items[i] = items[j], items[j] = item;
  }
}

static void run_group() {
  reset_group();
  uint32_t turn[SIMD];
  for (uint32_t i = 0; i < simdgroups; i++) turn[i] = launch->order == REVERSE ? simdgroups - 1 - i : i;
  for (bool more = true; more && !fatal;) {
    bool progress = false;
    if (launch->order == RANDOM) shuffle(turn, simdgroups);
    for (uint32_t k = 0; k < simdgroups && !fatal; k++) progress |= run_simdgroup(turn[k]);
    more = !fatal && pass_group_barrier(progress);
  }
}
