"""What leaves in place of values, by how their field is listed. Which fields are is `policy`'s matter.

A value that is not what its field declares (text where a number belongs, a category nobody listed, no ISO
time) leaves as null: it could carry anything.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache, partial

from edge_ai_assets.returns.outbox.schema import Value
from edge_ai_assets.usecase import EgressField, Feature

Rule = Callable[[Sequence[Value]], Sequence[Value]]
"""What leaves in place of the values of a column, of which each is taken for itself."""


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
        return _each(_number) if field.digits is None else partial(_rounded, field.digits)
    if field.leaves == "rounded":
        return _each(_nothing)
    if feature:
        return _each(partial(_one_of, frozenset(feature.categories or ())))
    return _each(OWN.get(field.name, _text))


def _each(rule: Callable[[Value], Value]) -> Rule:
    return lambda values: [rule(value) for value in values]


def _rounded(digits: int, values: Sequence[Value]) -> list[float | None]:
    """As `rounded`, which takes longer to call than to round: nearly all values are finite floats."""
    return [
        round(value, digits) if type(value) is float and math.isfinite(value) else rounded(digits, value)
        for value in values
    ]


def numbers(digits: int | None, values: Sequence[Value]) -> list[float | None]:
    """Of each value what `rounded` makes of it."""
    return [rounded(None, value) for value in values] if digits is None else _rounded(digits, values)


def rounded(digits: int | None, value: Value) -> float | None:
    """A finite number, rounded unless digits is None; anything else as None."""
    if (type(value) is not float and type(value) is not int) or not math.isfinite(value):
        return None
    return float(value) if digits is None else round(float(value), digits)


def _pseudonym(key: bytes, name: str, value: Value) -> Value:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


def _number(value: Value) -> Value:
    return value if type(value) in (float, int) and math.isfinite(value) else None  # type: ignore[arg-type]


def _one_of(categories: frozenset[str], value: Value) -> Value:
    return value if isinstance(value, str) and value in categories else None


def _time(value: Value) -> Value:
    try:
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _truth(value: Value) -> Value:
    return value if isinstance(value, bool) else None


def _text(value: Value) -> Value:
    return value if isinstance(value, str) else None


def _nothing(_: Value) -> Value:
    return None


OWN: dict[str, Callable[[Value], Value]] = {"_time": _time, "_predicted": _truth, "_correct": _truth}
"""How our own fields leave that are neither number nor text."""
