"""A pipeline: a list of operations in JSON in, one recipe with many steps out.

[{"op": "crop", "crop": "0,0,800,800"}, {"op": "resize", "w": 200},
 {"op": "blur", "blur": 2}, {"op": "encode", "format": "webp"}]
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from offloop.demo.parameters import parse, recipe
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from offloop.demo.recipe import Recipe

__all__ = ["MAX_OPERATIONS", "OPERATIONS", "OUTPUT", "read_operations", "with_steps"]

MAX_OPERATIONS = 10

#: parameters of the file that is made, which may also stand beside the operations
OUTPUT = (
    "format",
    "quality",
    "progressive",
    "lossless",
    "speed",
    "method",
    "subsampling",
    "max_bytes",
    "background",
    "frames",
    "strip",
    "icc",
    "measure",
)

#: parameters of each operation
OPERATIONS: dict[str, tuple[str, ...]] = {
    "resize": ("w", "h", "fit", "enlarge", "dpr", "crop", "background"),
    "crop": ("crop",),
    "rotate": ("rotate",),
    "flip": ("flip",),
    "flop": ("flop",),
    "grayscale": ("grayscale",),
    "blur": ("blur",),
    "sharpen": ("sharpen",),
    "encode": OUTPUT,
}

# What an operation means that is named without saying so.
_PLAIN = ("flip", "flop", "grayscale")


def read_operations(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the fields of each operation.

    Raises:
        Problem: 400 when it is no such list, or one of its members is wrong.
    """
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "ops is not JSON.", "ops") from None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_OPERATIONS:
        raise Problem(
            400, f"ops must be a list of 1 to {MAX_OPERATIONS} operations.", "ops"
        )
    operations = [_operation(number, one) for number, one in enumerate(listed, 1)]
    names = [name for name, _ in operations]
    if "encode" in names[:-1]:
        raise Problem(400, "ops: encode can only be the last operation.", "ops")
    return operations


def _operation(number: int, given: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(given, dict) or given.get("op") not in [*OPERATIONS]:
        there = ", ".join(OPERATIONS)
        raise Problem(400, f"ops: number {number} needs an op, one of {there}.", "ops")
    name = given.pop("op")
    if not given and name in _PLAIN:
        given = {name: True}
    try:
        pairs = [(key, _text(value)) for key, value in given.items()]
        fields = parse(pairs, OPERATIONS[name])
        recipe(fields)
    except Problem as problem:
        detail = f"ops: number {number}, {name}: {problem.detail}"
        raise Problem(problem.status, detail, "ops") from None
    return name, fields


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def with_steps(
    operations: list[tuple[str, dict[str, Any]]], output: Mapping[str, Any]
) -> Recipe:
    """Return the recipe that does the operations and then writes the file.

    Args:
        operations: as `read_operations` returned them.
        output: fields of the file, from parameters that stood beside them.

    Raises:
        Problem: 400 when something is asked for in both places.
    """
    fields = dict(output)
    if operations[-1][0] == "encode":
        *operations, (_, last) = operations
        twice = fields.keys() & last.keys()
        if twice:
            name = min(twice)
            raise Problem(400, f"{name} is given twice: beside ops and in it.", name)
        fields |= last
    final = recipe(fields)
    steps = [replace(recipe(step), icc=final.icc) for _, step in operations]
    return replace(final, before=tuple(steps))
