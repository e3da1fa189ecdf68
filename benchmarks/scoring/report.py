"""What is demanded of our service in one pass, and the pass as a table for people and as JSON."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from scoring import candidates

NAN = math.nan
WIDTH = 110
HEADINGS = (
    "",
    "1 row, 32 conn.\nrequests/s",
    "the same\nCPU µs/request",
    "1 row, 1 conn.\np50 ms",
    "1,000 rows, 8 conn.\nrows/s",
    "memory\nMB",
)


class Figures(NamedTuple):
    """Medians of one server; NaN is what was not measured."""

    kind: str
    """ours, peer or empty."""
    requests: float
    """1 row a request, 32 connections: requests a second."""
    cpu_us: float
    """Under the same load: CPU time of all its processes, µs a request."""
    p50_ms: float = NAN
    """1 row a request, 1 connection."""
    rows: float = NAN
    """1,000 rows a request, 8 connections: rows a second."""
    memory_mb: float = NAN
    """Resident in all its processes, after the pass."""


class Target(NamedTuple):
    """Something demanded of a ratio, and what it was."""

    name: str
    text: str
    found: float
    bound: float
    at_least: bool = True

    @property
    def word(self) -> str:
        if math.isnan(self.found):
            return "not measured"
        met = self.found >= self.bound if self.at_least else self.found <= self.bound
        return "met" if met else "NOT MET"


def targets(figures: Mapping[str, Figures], limits: Mapping[str, float], name: str) -> list[Target]:
    """What is demanded of our service: it writes each score to disk before it answers, no peer writes any.

    In each figure the peer that is best in it counts.
    """
    ours, empty = figures[name], figures[candidates.EMPTY]
    most, fastest = _best(figures, "requests", max), _best(figures, "rows", max)
    least, soonest = _best(figures, "cpu_us", min), _best(figures, "p50_ms", min)
    alone, fsync = limits["onnxruntime_1000_rows_per_second"], limits["fsync_ms"]
    busy, single = "1 row, 32 connections", "1 row, 1 connection, p50"
    return [
        Target("requests_to_peer", f"{busy} / {most.name}", ours.requests / most.value, 8),
        Target("requests_to_empty", f"{busy} / {candidates.EMPTY}", ours.requests / empty.requests, 0.35),
        Target(
            "cpu_to_peer", f"CPU a request / {least.name}", ours.cpu_us / least.value, 0.2, at_least=False
        ),
        Target("rows_to_peer", f"1,000 rows / {fastest.name}", ours.rows / fastest.value, 1.6),
        Target("rows_to_onnxruntime", "1,000 rows / onnxruntime, 1 thread", ours.rows / alone, 0.9),
        Target("p50_to_peer", f"{single} / {soonest.name}", ours.p50_ms / soonest.value, 1, at_least=False),
        Target("p50_to_fsync", f"{single} / one fsync", ours.p50_ms / fsync, 2.5, at_least=False),
    ]


def show(
    figures: Mapping[str, Figures], limits: Mapping[str, float], found: Sequence[Target], name: str
) -> None:
    """Tables on standard error: each figure of the others with ours divided by it."""
    console = Console(stderr=True)
    console.width = max(console.width, WIDTH)
    table = Table(title="medians (ours / theirs)", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for other, item in sorted(figures.items(), key=lambda pair: -pair[1].requests):
        pairs = zip(figures[name][1:], item[1:], strict=True)
        table.add_row(other, *(_cell(mine, value, other == name) for mine, value in pairs))
    console.print(table)
    judged = Table(title="demanded of ours", title_justify="left")
    for heading in ("", "found", "demanded", ""):
        judged.add_column(heading, justify="right" if heading else "left")
    for target in found:
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
        judged.add_row(target.text, _text(target.found), bound, target.word)
    console.print(judged)
    console.print("beside them:", ", ".join(f"{limit} {_text(value)}" for limit, value in limits.items()))


def publish(figures: Mapping[str, Figures], limits: Mapping[str, float], found: Iterable[Target]) -> None:
    """One JSON object as the last line of standard output: ratios and figures, three digits each."""
    flat = {
        re.sub(r"\W+", "_", f"{name}_{field}"): value
        for name, item in figures.items()
        for field, value in zip(item._fields[1:], item[1:], strict=True)
    }
    ratios = {target.name: target.found for target in found}
    result = {"benchmark": "scoring", "ratios": _rounded(ratios), "figures": _rounded(flat | dict(limits))}
    sys.stdout.write(json.dumps(result) + "\n")


class _Best(NamedTuple):
    value: float
    name: str


def _best(figures: Mapping[str, Figures], figure: str, pick: Callable[[Iterable[_Best]], _Best]) -> _Best:
    """The best peer in one figure."""
    peers = [_Best(getattr(item, figure), name) for name, item in figures.items() if item.kind == "peer"]
    return pick(peers) if peers else _Best(NAN, "best peer")


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in values.items() if not math.isnan(value)}


def _cell(mine: float, value: float, own: bool) -> str:
    if math.isnan(value):
        return ""
    return _text(value) if own else f"{_text(value)} ({_text(mine / value)})"


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
