"""The few things of Metal that macros cannot turn into C++. What is not understood stays; it cannot compile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"', re.S)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
VECTOR = r"(?:(?:metal::)?vec<[^<>;]*>|(?:u?(?:char|short|int|long)|b?float|half|bool)[234]\b)"
_CONSTRUCTOR = re.compile(rf"\b(?:({VECTOR})|static_cast<({VECTOR})>)\s*\((?!\s*\*)")
_QUALIFIER = re.compile(r"(?:alignas\s*\([^()]*\)|\bconst|\bstatic)\s*$")
# Of the whole program: C++ has no word for what Metal's `constant` says of it, that nobody writes there.
_CONSTANT = re.compile(r"^([ \t]*)constant\s+(?=[\w:]+(?:<[^<>;]*>)?\s+\w+\s*(?:\[[^\]]*\]\s*)*=)", re.M)
_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def blank_comments(source: str) -> str:
    """Comments, strings and directives as spaces: same length, same lines."""
    def blank(m: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", m[0])

    return _DIRECTIVE.sub(blank, _COMMENT_OR_STRING.sub(blank, source))


def end_of(text: str, start: int, stop: str) -> int:
    """Where stop stands outside of brackets that open after start."""
    depth = 0
    for i in range(start, len(text)):
        if depth == 0 and text[i] == stop:
            return i
        depth += _DEPTH.get(text[i], 0)
    return len(text)


def split(text: str) -> list[str]:
    """At commas outside of brackets and of template arguments."""
    parts, depth = [""], 0
    for c in text:
        depth += {**_DEPTH, "<": 1, ">": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _declared(declaration: str) -> list[str]:
    """The variables of `T x[n], y`; none where it is a pointer, a parameter or a cast."""
    flat = re.sub(r"<[^<>]*>", "", re.sub(r"<[^<>]*>", "", declaration))
    flat = re.sub(r"\[[^\]]*\]|=[^,;]*", "", flat)
    return [] if re.search(r"[*&(]", flat) else [re.findall(r"[A-Za-z_]\w*", d)[-1] for d in split(flat)]


def threadgroup_variables(source: str) -> str:
    """`threadgroup T x[n];` -> MSL_TG_DECL(0) T x[n]; MSL_TG_REG(x);"""
    clean, out, done, count = blank_comments(source), "", 0, 0
    for m in re.finditer(r"\bthreadgroup\b", clean):
        before = _QUALIFIER.sub("", clean[: m.start()].rstrip()).rstrip()
        end = end_of(clean, m.end(), ";")
        names = _declared(clean[m.end() : end]) if not before or before[-1] in ";{}" else []
        if not names:
            continue
        kind = "CLASS" if _is_class(clean[m.end() : end].split()[0], clean) else "DECL"
        registered = "".join(f" MSL_TG_REG({name});" for name in names)
        out += f"{source[done : m.start()]}MSL_TG_{kind}({count}){source[m.end() : end + 1]}{registered}"
        done, count = end + 1, count + 1
    return out + source[done:]


def _is_class(kind: str, source: str) -> bool:
    declared = rf"\b(?:struct|class)\s+{re.escape(kind)}\b"
    return bool(re.match(r"(?:metal::)?atomic", kind) or re.search(declared, source))


def to_cxx(source: str) -> str:
    """Threadgroup variables, constants, vector constructors: float4(a, b) -> msl_construct<float4>(a, b)."""
    made = _CONSTANT.sub(r"\1constant const ", threadgroup_variables(source))
    return _CONSTRUCTOR.sub(lambda m: f"msl_construct<{m[1] or m[2]}>(", made)


def kernel_parameters(source: str, name: str) -> list[tuple[str, str]]:
    """(declaration, attribute) of each parameter of `[[kernel]] void name(`."""
    m = re.search(r"(?:\[\[\s*kernel\b.*?\]\]|\bkernel)\s+void\s+" + re.escape(name) + r"\s*\(", source)
    if not m:
        raise ValueError(f"no kernel {name} in the source")
    found: list[tuple[str, str]] = []
    for parameter in split(blank_comments(source[m.end() : end_of(source, m.end(), ")")])):
        declaration, _, attribute = parameter.partition("[[")
        given = attribute.rpartition("]]")[0].split(",")[0].strip()
        implied = f"buffer({sum('buffer' in a for _, a in found)})"  # Metal numbers them in order
        found.append((" ".join(declaration.split()), given or implied))
    return found


def function_constants(source: str, values: Mapping[str, int]) -> str:
    """`constant bool x [[function_constant(3)]];` -> a constant with its value, 0 without one."""
    def value(m: re.Match[str]) -> str:
        return f"static const {m[1]} {m[2]} = {int(values.get(m[2], 0))};"

    return re.sub(r"\bconstant\s+(\w+)\s+(\w+)\s*\[\[\s*function_constant\(\d+\)\s*\]\]\s*;", value, source)


# One specialisation an address space: without address spaces they would be one, three times.
_POINTER_ELEMENT = re.compile(
    r"template <typename T>\nstruct pointer_element<(?:device|constant|threadgroup) T\*> \{[^}]*\};"
)


def inline_includes(source: str, folders: Sequence[Path], seen: set[str], name: str) -> str:
    """Expand #include "mlx/...", so that all of it is rewritten."""
    def expand(m: re.Match[str]) -> str:
        path = next((f / m[1] for f in folders if (f / m[1]).exists()), None)
        if not path or m[1] in seen:
            return "" if path else m[0]
        seen.add(m[1])
        body = inline_includes(path.read_text(encoding="utf-8"), folders, seen, path.name)
        body = _POINTER_ELEMENT.sub(lambda e: "\n" * e[0].count("\n"), body)
        return f'#line 1 "{path.name}"\n{body}\n#line {source.count(chr(10), 0, m.start()) + 2} "{name}"'

    text = re.sub(r'^[ \t]*#include\s+"(mlx/[^"]+)"', expand, source, flags=re.M)
    return re.sub(r"\[\[threadgroup\((\d+)\)\]\]", r"[[msl_threadgroup(\1)]]", text.replace("#pragma once", ""))
