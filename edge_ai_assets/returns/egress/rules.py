"""What leaves in place of values, by how their field is listed. Which fields are is `policy`'s matter.

A value that is not what its field declares (text where a number belongs, a category nobody listed, no ISO
time) leaves as null: it could carry anything.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, partial
from types import NoneType

import numpy as np

from edge_ai_assets.returns.outbox.columns import Column
from edge_ai_assets.returns.outbox.schema import Value
from edge_ai_assets.usecase import EgressField, Feature

Rule = Callable[[Column], Column]
"""What leaves in place of the values of a column, of which each is taken for itself."""
WHOLE_SECONDS = re.compile(r"\d{4}-\d\d-\d\d.\d\d:\d\d:\d\d", re.ASCII).fullmatch
"""How `isoformat` writes a time without a zone, but for what stands before the hours."""
EXACT = 2.0**52
"""From here on a double is a whole number: there is nothing to round."""


def of(field: EgressField, feature: Feature | None, name: str, key: bytes) -> Rule:
    """The rule of a listed field that leaves in rows.

    Args:
        field: how it is listed.
        feature: that it is, or is derived from; None for one of our own fields.
        name: of the value: a derived one has a pseudonym of its own.
        key: that pseudonyms are made with.
    """
    if field.leaves == "pseudonymised":
        # The same run or serial number comes with many rows, and HMAC costs more than all else here.
        return _each(lru_cache(10_000, typed=True)(partial(_pseudonym, key, name)))
    if field.name == "_score" or (feature and feature.kind == "number"):
        return partial(_numbers, field.digits)
    if field.leaves == "rounded":
        return _nothing
    if feature:
        return partial(_one_of, frozenset(feature.categories or ()))
    return OWN.get(field.name) or partial(_one_of, frozenset(field.values))


def _each(rule: Callable[[Value], Value]) -> Rule:
    def leave(values: Column) -> Column:
        found = listed(values)
        if not {*map(type, found)} <= {str, NoneType}:  # else 1, 1.0 and True would be one value
            return [rule(value) for value in found]
        known = {value: rule(value) for value in set(found)}  # the same text comes with many rows
        return [known[value] for value in found]

    return leave


def listed(values: Column) -> Sequence[Value]:
    """A column as values, None for what is missing."""
    if not isinstance(values, np.ndarray):
        return values
    return [None if value != value else value for value in values.tolist()]


def _numbers(digits: int | None, values: Column) -> Column:
    return numbers(digits, values)


def numbers(digits: int | None, values: Column) -> np.ndarray:
    """The finite numbers of a column, rounded unless digits is None; NaN for anything else. float64."""
    if not isinstance(values, np.ndarray):
        real = (value if type(value) in (float, int) else None for value in values)
        values = np.array([math.nan if value is None else value for value in real], np.float64)
    found = np.where(np.isfinite(values), values, np.nan)
    return found if digits is None else _rounded(digits, found)


def _rounded(digits: int, values: np.ndarray) -> np.ndarray:
    """As Python rounds each: to the nearest decimal, of the exact value.

    numpy.round multiplies, and what is nearly half way may then fall to the other side: 2.675 is less than
    that, and leaves as 2.67. So those that are near are left to Python.
    """
    scale = 10.0**digits
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = values * scale
        whole = np.rint(shifted)
        size = np.abs(shifted)
        sure = (size < EXACT) & (np.abs(np.abs(shifted - whole) - 0.5) > size * 2.0**-50)
        found = whole / scale
    for place in np.flatnonzero(~sure & ~np.isnan(values)):
        found[place] = round(float(values[place]), digits)
    return found


def _pseudonym(key: bytes, name: str, value: Value) -> Value:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        value += 0.0  # makes 0.0 of -0.0, which is the same to a cache
    return hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


def _one_of(categories: frozenset[str], values: Column) -> Column:
    return [value if isinstance(value, str) and value in categories else None for value in listed(values)]


def _time(value: Value) -> Value:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if WHOLE_SECONDS(value):  # mostly: for Python to write it takes four times as long as to read it
        return f"{value[:10]}T{value[11:]}"
    return found.isoformat()


def _truths(values: Column) -> Column:
    return [value if isinstance(value, bool) else None for value in listed(values)]


def _nothing(values: Column) -> Column:
    return [None] * len(values)


def _listed_notes(values: Column) -> Column:
    return [value if isinstance(value, str) else None for value in listed(values)]


OWN: dict[str, Rule] = {
    "_time": _each(_time),
    "_predicted": _truths,
    "_correct": _truths,
    "_note": _listed_notes,  # `policy` has taken out by now what `egress.notes` does not list
}
"""How our own fields leave; the others are numbers, or free text with `values`."""
