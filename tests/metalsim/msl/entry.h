// After the kernel: how the runtime finds its memory and calls it. launch.py defines MSL_CALL.
#pragma once
struct msl_pointer {
  void* p;
  template <typename T> operator T*() const { return (T*)p; }
};
struct msl_reference {
  void* p;
  template <typename T> operator T&() const { return *(T*)p; }
};
struct msl_triple {
  const uint32_t* p;
  operator metal::vec<uint, 3>() const { return {p[0], p[1], p[2]}; }
  operator metal::vec<uint, 2>() const { return {p[0], p[1]}; }
  operator metal::vec<ushort, 3>() const { return {ushort(p[0]), ushort(p[1]), ushort(p[2])}; }
  operator uint() const { return p[0]; }
};

extern "C" {
#define MSL_SYMBOL(...) extern char __VA_ARGS__[] __attribute__((weak, visibility("hidden")))
MSL_SYMBOL(__start_msl_tg);
MSL_SYMBOL(__stop_msl_tg);
MSL_SYMBOL(__ehdr_start);
extern char _end[] __attribute__((weak));

MSL_OPAQUE void msl_ranges(char** four) {
  four[0] = __start_msl_tg, four[1] = __stop_msl_tg, four[2] = __ehdr_start, four[3] = _end;
}
MSL_OPAQUE void msl_entry(void** buffers, const MslAttributes* attributes) { MSL_CALL; }
}
