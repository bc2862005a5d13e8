"""What Apple's compiler refuses and clang's C++ does not: words that are no Metal, and wrong address spaces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.metalsim import compiler
from tests.metalsim.rewrite import VECTOR, blank_comments, threadgroup_variables

# From section 1.5 of the Metal Shading Language Specification, as far as other sources quote it.
FORBIDDEN = {
    r"\bdouble\b": "Metal has no double",
    r"\bstd\s*::": "Metal has no std namespace",
    r"\b(?:virtual|dynamic_cast|typeid)\b": "no run-time polymorphism in Metal",
    r"\b(?:try|catch|throw|noexcept)\b": "no exceptions in Metal",
    r"\b(?:new|delete)\b|\b(?:malloc|free)\s*\(": "no allocation in Metal",
    r"\b(?:goto|thread_local|register|asm)\b": "not in Metal",
    r"\b(?:printf|assert)\s*\(": "not in Metal (os_log only)",
    r"\b(?:__builtin_\w+|_Float16|__bf16)\b": "clang's, not Metal's",
    r"\b(?:float|half)(?:8|16)\b|\bvec<[^<>]*,\s*(?:8|16)\s*>": "Metal's vectors have 2 to 4 elements",
    r"\[[&=\w\s,]*\]\s*\([^()]*\)\s*(?:->\s*\w+\s*)?\{": "no lambda expressions in Metal",
    r"\b(?:struct|class)\s+\w+\s*(?:final\s*)?:(?!:)": "no derived classes in Metal",
    rf"(?<![\w>])\(\s*{VECTOR}\s*\)\s*[\w(]": "reinterprets or converts, by the compiler: write a constructor",
    r"\batomic_(?!thread_fence)\w+\s*\([^;]*\bmemory_order_(?!relaxed)\w+": "Metal's are relaxed",
    r"\bthreadgroup\b[^;(){}*&]*=[^;]*;": "a threadgroup variable has no initialiser",
}
SINCE_METAL_4 = {
    r"\bif\s+constexpr\b|\bauto\s*\[[^\]]*\]\s*=|\binline\s+constexpr\b|\bif\s*\([^();]*;[^();]*\)":
        "C++17; Metal 3 is C++14 and warns",
}

_SCALAR = (r"(?:float|half|bfloat|bfloat16_t|float16_t|u?int(?:8|16|32|64)_t|bool|size_t"
           r"|u?int|u?char|u?short|u?long|(?:b?float|half|u?int|u?char|u?short|u?long)[234]|vec<[^<>;]*>|atomic<[^<>;]*>)")
_QUALIFIERS = r"(?:(?:const|volatile|restrict|unsigned|signed|struct|static|constexpr)\s+)*"
_DECLARED = r"\s*([*&])\s*(?:const\s+)?(\w+)\s*(?=[=;,)\[])"
_POINTERS = (
    rf"(?:^|[;{{}}(,<>])\s*({_QUALIFIERS}(?:\w+::)*{_SCALAR}){_DECLARED}",
    rf"(?:^|[;{{}}]|\btemplate\s*<[^<>]*>[^()]*\()\s*((?:const\s+)?[A-Z]\w*){_DECLARED}",
)
_SPACE = re.compile(r"\b(?:device|threadgroup|constant|thread)\b")

_MATRICES = "#include <metal_simdgroup_matrix>"
_FLAGS = (
    "-DMSL_LINT", "-O0", "-fno-caret-diagnostics", "-Wno-everything", "-Werror=uninitialized",
    "-Werror=sometimes-uninitialized", "-Werror=conditional-uninitialized", "-Werror=return-type",
    "-Werror=implicit-float-conversion", "-Wno-implicit-int-float-conversion", "-Werror=infinite-recursion",
    "-Werror=array-bounds", "-Werror=shift-count-overflow", "-Werror=division-by-zero", "-Werror=vla",
)


def check_tokens(source: str, metal: tuple[int, int] = (3, 1)) -> list[str]:
    """`line n: what: why` of each word that Metal does not have."""
    clean = blank_comments(source)
    rules = FORBIDDEN if metal >= (4, 0) else {**FORBIDDEN, **SINCE_METAL_4}
    found = [
        f"line {n}: not ASCII, and MLX hands the source over as ASCII"
        for n, line in enumerate(source.split("\n"), 1) if not line.isascii()
    ]
    for pattern, why in rules.items():
        found += [f"line {n}: `{m[0].strip()[:40]}`: {why}" for n, m in _lines(clean, pattern)]
    for pattern in _POINTERS:
        found += [f"line {n}: `{m[1]} {m[2]} {m[3]}`: a pointer or reference needs an address space"
                  for n, m in _lines(clean, pattern) if not _has_space(clean, m)]
    return found


def check_header(source: str, metal: tuple[int, int] = (3, 1)) -> list[str]:
    """The same of functions that a kernel calls."""
    own = [] if threadgroup_variables(source) == source else ["a threadgroup variable outside of a kernel"]
    return [*check_tokens(source, metal), *own]


def check_includes(header: str, source: str) -> list[str]:
    """MLX's own text brings mathematics and lanes, but no matrices."""
    clean = blank_comments(header + source)
    used = re.search(r"\bsimdgroup_(?:matrix\b|load\b|b?float8x8\b|half8x8\b)", clean)
    return [f"`{used[0]}` needs #include <metal_simdgroup_matrix>"] if used and _MATRICES not in header else []


def _lines(source: str, pattern: str) -> Iterator[tuple[int, re.Match[str]]]:
    for m in re.finditer(pattern, source):
        yield source.count("\n", 0, m.start()) + 1, m


def _has_space(source: str, m: re.Match[str]) -> bool:
    line_start = source.rfind("\n", 0, m.start(1)) + 1
    return bool(_SPACE.search(source[max(line_start, m.start(1) - 40) : m.start(2)]))


def check_compile(text: str, expression: str = "") -> list[str]:
    """clang's errors with device, constant and threadgroup as address spaces. text: rewritten by to_cxx."""
    forced = f"\ntemplate decltype({expression}) {expression};\n" if "<" in expression else ""
    source = f'#include "msl.h"\n#line 1 "utils.h"\n{_utilities()}\n{text}{forced}'
    errors = compiler.errors([*compiler.LANGUAGE, *_FLAGS, *compiler.include_flags()], source)
    found = filter(_is_finding, errors)
    return [re.sub(r"\s*\[-Werror.*\]|error: |^/.*/", "", line) for line in found]


def _utilities() -> str:
    """MLX's utils.h, but for `strides[2]` parameters: an array parameter takes no address space in C++."""
    path = compiler.mlx_include() / "mlx/backend/metal/kernels/utils.h"
    return re.sub(r"strides\[\d\]\)", "*strides)", path.read_text(encoding="utf-8")).replace("#pragma once", "")


def _is_finding(line: str) -> bool:
    ours = re.search(r"(?:utils|msl|types|math|simd|atomic|matrix)\.h:", line)
    if ours and "static assertion" not in line:
        return False
    return "loses floating-point precision" not in line or "bfloat" in line  # to half is silent in Metal
