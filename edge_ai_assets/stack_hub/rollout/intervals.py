"""What two shares that were counted say about each other. Numbers in, numbers out."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

Z = 3.0
"""Standard errors: an interval misses once in 370 looks, for many sites are looked at, and often."""


class Interval(NamedTuple):
    """From low to high, both included."""

    low: float
    high: float


def share(part: int, whole: int, z: float = Z) -> Interval:
    """Where a share lies of which `part` of `whole` were seen; 0 to 1 when nothing was.

    Raises:
        ValueError: not 0 <= part <= whole.

    Source: Wilson, Probable inference, J. Am. Stat. Assoc. 22 (1927) 209-212; without correction.
    """
    if not 0 <= part <= whole:
        raise ValueError(f"a share of {part} in {whole}: the part must be from 0 to the whole")
    if whole == 0:
        return Interval(0.0, 1.0)
    seen, spread = part / whole, z * z / whole
    middle = (seen + spread / 2) / (1 + spread)
    half = z * sqrt(seen * (1 - seen) / whole + spread / (4 * whole)) / (1 + spread)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def rise(before: tuple[int, int], after: tuple[int, int], z: float = Z) -> Interval:
    """By how much a share rose, from -1 to 1, when it was counted twice as (part, whole).

    Raises:
        ValueError: a whole is 0, or a part is not from 0 to its whole.

    Source: Newcombe, Interval estimation for the difference between independent proportions, Statistics in
    Medicine 17 (1998) 873-890, method 10. Rows of a plant resemble their neighbours, so the intervals are
    narrower than they should be: bounds that are held against them leave room.
    """
    if not before[1] or not after[1]:
        raise ValueError(f"nothing was counted: {before[1]} before, {after[1]} after")
    first, then = share(*before, z), share(*after, z)
    p, q = before[0] / before[1], after[0] / after[1]
    low = q - p - sqrt((q - then.low) ** 2 + (first.high - p) ** 2)
    high = q - p + sqrt((then.high - q) ** 2 + (p - first.low) ** 2)
    return Interval(max(-1.0, low), min(1.0, high))
