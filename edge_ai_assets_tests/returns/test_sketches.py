from __future__ import annotations

import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.ml.drift import histogram, population_stability_index
from edge_ai_assets.returns.package import sketches
from edge_ai_assets.returns.package.sketches import K, SketchError, counts, make, merge, read
from edge_ai_assets.scoring.contract import Reference

RANK_ERROR = 0.0266
"""Twice the library's bound at 99 % confidence, so that no run of chance fails."""
SIZES = [1, 2, 3, K - 1, K, K + 1, 1_000, 30_000, 400_000]


def normal(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows)


@pytest.mark.parametrize("rows", SIZES)
def test_a_sketch_holds_what_the_library_says_it_does(rows):
    from datasketches import kll_doubles_sketch

    values = normal(rows)
    data = make(values)
    items = read(data, rows, K)
    assert (items.rows, items.low, items.high) == (rows, values.min(), values.max())
    theirs = sorted((float(value), weight) for value, weight in kll_doubles_sketch.deserialize(data))
    assert sorted(zip(items.values.tolist(), items.weights.tolist(), strict=True)) == theirs
    assert len(data) < 6_000
    assert set(items.values) <= set(values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=K))
def test_a_small_sketch_is_exact(values):
    items = read(make(np.array(values)), len(values), K)
    assert items.values.tolist() == sorted(values)
    edges = sorted({values[0], values[-1]})
    exact = histogram(np.array(values), Reference("x", tuple(edges), (), 0.1))
    assert counts(make(np.array(values)), edges).tolist() == exact.tolist()


def test_nothing_tells_the_order_of_the_values():
    values = normal(K)
    assert make(values) == make(values[::-1]) == make(np.sort(values))


@pytest.mark.parametrize("rows", SIZES)
def test_counts_are_about_right_and_add_up(rows):
    values, edges = normal(rows), [-1.0, 0.0, 0.5]
    found = counts(make(values), edges)
    exact = np.histogram(values, [-np.inf, *edges, np.inf])[0]
    assert found.sum() == rows
    assert np.abs(found - exact).max() <= 2 * RANK_ERROR * rows
    assert population_stability_index(exact, found) < 0.05


@pytest.mark.parametrize("sizes", [[1], [1, 1], [5, 1, 400], [30_000] * 5, [1] * 300, [400_000, 3]])
def test_merging_is_as_good_as_one_sketch_of_all(sizes):
    parts = [normal(rows, seed) for seed, rows in enumerate(sizes)]
    whole = np.sort(np.concatenate(parts))
    items = read(merge(make(part) for part in parts), sum(sizes), K)
    assert (items.low, items.high) == (whole[0], whole[-1])
    ranks = np.cumsum(items.weights) / items.rows
    exact = np.searchsorted(whole, items.values, "right") / len(whole)
    assert np.abs(ranks - exact).max() <= RANK_ERROR


def test_nothing_cannot_be_merged():
    with pytest.raises(SketchError, match="no sketch to merge"):
        merge([])


@pytest.mark.parametrize(
    ("rows", "k", "message"), [(999, K, "1000 rows went in, it should be 999"), (1_000, 100, "its k is 200")]
)
def test_what_is_said_of_a_sketch_must_be_so(rows, k, message):
    with pytest.raises(SketchError, match=message):
        read(make(normal(1_000)), rows, k)


def changed(data: bytes, place: int, form: str, value: float) -> bytes:
    made = bytearray(data)
    struct.pack_into(form, made, place, value)
    return bytes(made)


LARGE, ONE = make(normal(1_000)), make(normal(1))
LEVELS = LARGE[18]
HEAD = 20 + 4 * LEVELS
FOREIGN = {
    "nothing": b"",
    "too much": bytes(100_000),
    "zeros": bytes(100),
    "cut in its preamble": LARGE[:18],
    "cut in its levels": LARGE[: HEAD - 2],
    "cut in its values": LARGE[:-8],
    "longer": LARGE + bytes(8),
    "one, longer": ONE + bytes(8),
    "other preamble": changed(LARGE, 0, "<B", 2),
    "other version": changed(LARGE, 1, "<B", 3),
    "other family": changed(LARGE, 2, "<B", 7),
    "empty": changed(LARGE, 3, "<B", 1),
    "unknown flag": changed(LARGE, 3, "<B", 64),
    "no k": changed(LARGE, 4, "<H", 0),
    "large k": changed(LARGE, 4, "<H", 65_535),
    "other m": changed(LARGE, 6, "<B", 9),
    "hidden byte": changed(LARGE, 7, "<B", 9),
    "no rows": changed(LARGE, 8, "<Q", 0),
    "more rows": changed(LARGE, 8, "<Q", 2**63),
    "least k above k": changed(LARGE, 16, "<H", 201),
    "no levels": changed(LARGE, 18, "<B", 0),
    "many levels": changed(LARGE, 18, "<B", 255),
    "another hidden byte": changed(LARGE, 19, "<B", 9),
    "level out of it": changed(LARGE, 20, "<I", 2**31),
    "levels that fall": changed(LARGE, 24, "<I", 0),
    "smallest too large": changed(LARGE, HEAD, "<d", 9.0),
    "largest too small": changed(LARGE, HEAD + 8, "<d", -9.0),
    "no number": changed(LARGE, len(LARGE) - 8, "<d", float("nan")),
    "infinite": changed(LARGE, HEAD + 8, "<d", float("inf")),
    "one that is infinite": changed(ONE, 8, "<d", float("inf")),
    "not sorted": changed(LARGE, len(LARGE) - 8, "<d", -1.5),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_bytes_are_refused(name):
    for use in (read, lambda data: merge([make(normal(5)), data]), lambda data: counts(data, [0.0])):
        with pytest.raises(SketchError):
            use(FOREIGN[name])


def test_no_hostile_bytes_crash_what_reads_them():
    """In a process of its own: the library is C++ and trusts what it is given, so a crash would be one of the
    process. Sketches of all sizes, changed in up to eight places, cut, and spliced."""
    program = f"import {__name__} as own; own.read_hostile(10_000)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    read_whole, refused = map(int, done.stdout.split())
    assert read_whole + refused == 10_000
    assert min(read_whole, refused) > 100


def read_hostile(number: int) -> None:
    chance = random.Random(5)
    whole = [make(normal(rows)) for rows in (1, 2, 50, 200, 500, 5_000, 100_000)]
    passed = 0
    for _ in range(number):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 8)):
            # Mostly where it says how large what follows is, with values that mean something there.
            place = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 60))
            data[place] = chance.choice([0, 1, 2, 4, 8, 127, 128, 255, chance.randrange(256)])
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        if chance.random() < 0.1:
            data += chance.choice(whole)
        try:
            found = bytes(data)
            sketches.counts(sketches.merge([whole[3], found, found]), [0.0])
        except SketchError:
            continue
        passed += 1
    print(passed, number - passed)
