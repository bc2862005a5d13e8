// Every access is held against what is known of its bytes: whose they are, who wrote and read them last.
#pragma once
#include <stdlib.h>

#include "state.h"

enum { WRITABLE = 1, INITIALISED = 2 };
enum Kind : uint8_t { NEVER, PLAIN, ATOMIC };
enum Order { ORDERED, UNORDERED, UNFENCED };  // unfenced: a barrier, but its mem_flags name other memory

struct Access {
  uint32_t group;
  uint16_t lane;
  Kind kind;
  uint32_t fence, barrier, simd_fence;  // how many of each had passed
  uint32_t where;
};
struct Cell { Access write, readers[2], foreign; };  // foreign: a reader of another threadgroup
struct Region {
  uint8_t *start, *end;
  const char* name;
  uint32_t flags;
  int shift;  // log2 of the bytes in a cell
  Cell* cells;
  bool threadgroup;
  uint64_t bytes_read, bytes_written;
};
struct Touch { uint8_t* p; int n; bool write, read, atomic; uint32_t where; };

static const int MAX_REGIONS = 80;
static Region regions[MAX_REGIONS];
static int region_count;
static uint8_t* page_map;                 // page of the arena -> region + 1
static uint8_t threadgroup_map[1 << 16];  // 16 bytes of the threadgroup section -> region + 1
static uint8_t *threadgroup_start, *threadgroup_end;

// Barriers passed by this threadgroup, and fences by the memory they order: 0 device, 1 threadgroup.
static uint32_t barriers, fences[2], simd_fences[2][SIMD];

static bool within(const uint8_t* p, const void* start, const void* end) { return p >= start && p < end; }

static Region* region_of(const uint8_t* p) {
  int i = 0;
  if (within(p, launch->arena, launch->arena + launch->arena_size)) i = page_map[(p - launch->arena) >> 12];
  if (within(p, threadgroup_start, threadgroup_end)) i = threadgroup_map[(p - threadgroup_start) >> 4];
  return i ? &regions[i - 1] : nullptr;
}

static bool in_any_stack(const uint8_t* p) { return within(p, stacks, stacks + STACK * MAX_LANES); }

// The lane's own stack, its arguments, or constants of the program.
static bool is_private(const uint8_t* p) {
  if (within(p, lane->stack, lane->stack + STACK)) return true;
  if (within(p, &lane->attributes, &lane->attributes + 1)) return true;
  if (within(p, launch->arguments, launch->arguments + 128)) return true;
  if (in_any_stack(p) || within(p, threadgroup_start, threadgroup_end)) return false;
  return within(p, image, image_end);
}

// Two accesses of different lanes are ordered by a threadgroup barrier that fences their memory, or by a simdgroup
// barrier within a simdgroup; by nothing else, and between threadgroups never.
static Order order_of(const Access& then, const Region& r) {
  if (!then.kind) return ORDERED;
  if (then.group != group) return r.threadgroup ? ORDERED : UNORDERED;
  int me = lane_index(), simdgroup = me / SIMD;
  if (then.lane == me || then.fence != fences[r.threadgroup]) return ORDERED;
  if (then.lane / SIMD == simdgroup && then.simd_fence != simd_fences[r.threadgroup][simdgroup]) return ORDERED;
  return then.barrier != barriers ? UNFENCED : UNORDERED;
}

struct Conflict { Order order; Access other; bool two_writes; };

static Conflict conflict(const Cell& c, const Touch& t, const Region& r) {
  const Access* others[] = {&c.write, &c.readers[0], &c.readers[1], &c.foreign};
  for (int i = 0; i < (t.write ? 4 : 1); i++) {
    if (t.atomic && others[i]->kind == ATOMIC) continue;
    Order order = order_of(*others[i], r);
    if (order) return {order, *others[i], i == 0 && t.write && !t.read};
  }
  return {};
}

// Two readers, of different simdgroups where there are such: a later writer conflicts with one of them. One from
// before its simdgroup's last barrier makes room, or it would hide a later one from writers of that simdgroup.
static void remember_reader(Cell& c, const Access& now) {
  Access &a = c.readers[0], &b = c.readers[1];
  if (a.kind && a.group != now.group) {
    c.foreign = a;
    b = Access{};
  }
  bool before = a.lane / SIMD == now.lane / SIMD && a.simd_fence != now.simd_fence;
  bool stale = a.group != now.group || a.fence != now.fence || before;
  if (!a.kind || stale || a.lane == now.lane) a = now;
  else if (!b.kind || b.fence != now.fence || b.group != now.group || b.lane / SIMD == a.lane / SIMD) b = now;
}

// Two unordered writes of one value are harmless; whether they are shows at the next access, after the store.
struct Rewrite { bool pending; Touch touch; uint8_t before[16]; Access other; const Region* region; int lane; };
static Rewrite rewrite;

static void settle() {
  if (!rewrite.pending) return;
  rewrite.pending = false;
  const Touch& t = rewrite.touch;
  if (!memcmp(t.p, rewrite.before, t.n)) {
    launch->repeated_writes++;
    return;
  }
  report("race", t.where, rewrite.other.where,
         "write-write on %s+%ld: lane %d of threadgroup %u and lane %d of threadgroup %u, not ordered",
         rewrite.region->name, (long)(t.p - rewrite.region->start), rewrite.other.lane, rewrite.other.group - 1,
         rewrite.lane, group - 1);
}

static void postpone(const Touch& t, const Conflict& c, const Region& r) {
  rewrite.pending = true;
  rewrite.touch = t;
  rewrite.other = c.other;
  rewrite.region = &r;
  rewrite.lane = lane_index();
  memcpy(rewrite.before, t.p, t.n);
}

static void report_conflict(const Touch& t, const Conflict& c, const Region& r) {
  bool race = c.order == UNORDERED;
  report(race ? "race" : "missing_fence", t.where, c.other.where,
         "%s on %s+%ld: lane %d of threadgroup %u and lane %d of threadgroup %u, %s",
         t.write && t.read ? "read-modify-write" : t.write ? "write after access" : "read after write", r.name,
         (long)(t.p - r.start), c.other.lane, c.other.group - 1, lane_index(), group - 1,
         race ? "not ordered by a barrier" : "ordered by a barrier whose mem_flags do not fence this memory");
}

static void check_cells(const Touch& t, Region& r) {
  int me = lane_index();
  Access now = {group, (uint16_t)me, t.atomic ? ATOMIC : PLAIN, fences[r.threadgroup], barriers,
                simd_fences[r.threadgroup][me / SIMD], t.where};
  bool unwritten = false;
  Conflict found = {};
  size_t first = (t.p - r.start) >> r.shift, last = (t.p + t.n - 1 - r.start) >> r.shift;
  for (size_t i = first; i <= last; i++) {
    Cell& c = r.cells[i];
    if (r.threadgroup && c.write.kind && c.write.group != group) c = Cell{};  // left by an earlier threadgroup
    unwritten |= t.read && !c.write.kind && !(r.flags & INITIALISED);
    if (!found.order) found = conflict(c, t, r);
    if (t.write) c.write = now;
    if (t.read) remember_reader(c, now);
  }
  if (unwritten)
    report(r.threadgroup ? "uninitialised_threadgroup" : "uninitialised_output", t.where, 0,
           "read of %s+%ld, which nothing wrote%s", r.name, (long)(t.p - r.start),
           r.threadgroup ? " in this threadgroup" : "");
  if (found.order == UNORDERED && found.two_writes && t.n <= 16) postpone(t, found, r);
  else if (found.order) report_conflict(t, found, r);
}

static void report_wild(const Touch& t) {
  const Region* near = nullptr;
  long best = 1l << 62;
  for (Region* r = regions; r < regions + region_count; r++) {
    long away = t.p < r->start ? r->start - t.p : t.p - r->end;
    if (away < best) best = away, near = r;
  }
  report("out_of_bounds", t.where, 0, "%s of %d bytes outside every buffer; nearest is %s, at byte offset %ld",
         t.write ? "write" : "read", t.n, near ? near->name : "none", near ? (long)(t.p - near->start) : 0);
}

static void outside(const Touch& t) {
  if (is_private(t.p)) return;
  if (in_any_stack(t.p)) {
    report("foreign_private", t.where, 0, "access to another lane's private memory");
    return;
  }
  report_wild(t);
  end_launch();
}

static void touch(const Touch& t) {
  if (!lane) return;
  launch->accesses++;
  settle();
  Region* r = region_of(t.p);
  if (!r) return outside(t);
  if (t.p < r->start || t.p + t.n > r->end) {
    report("out_of_bounds", t.where, 0, "%s of %d bytes at byte offset %ld of %s, which has %ld bytes",
           t.write ? "write" : "read", t.n, (long)(t.p - r->start), r->name, (long)(r->end - r->start));
    end_launch();
  }
  if (t.write && !(r->flags & WRITABLE)) {
    report("write_to_input", t.where, 0, "write to %s, which is const", r->name);
    end_launch();
  }
  if (t.read) r->bytes_read += t.n;
  if (t.write) r->bytes_written += t.n;
  if (r->cells) check_cells(t, *r);
}
