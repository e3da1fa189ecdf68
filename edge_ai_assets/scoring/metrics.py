"""What the service counts of itself: a few stores into memory, from any thread.

Where they are kept is `counters`' matter, the words that Prometheus reads are `exposition`'s. What is worth
counting is decided where it happens.

Source: Prometheus, "Metric and label naming" and "Histograms and summaries".
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_ai_assets.scoring import exposition
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.counters import Counters, Series, Worker, workers
from edge_ai_assets.scoring.exposition import Family, Values

SECONDS = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets of a duration: from a small body's parsing to a large one's upload."""
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1e3, 1e4, 1e5)
CODES = (200, 304, 400, 401, 403, 404, 405, 408, 410, 413, 415, 417, 421, 422, 429, 431, 500, 503, 507)
OTHER = "other"
"""The route of requests that have none, and the code of answers that are not in CODES."""
STAGES = ("parse", "score", "commit")


FAMILIES = {
    "edge_ai_requests": Family("Answers, by what was asked for and status code.", ("route", "code")),
    "edge_ai_request_seconds": Family("From a whole request to its answer.", ("route",), SECONDS),
    "edge_ai_stage_seconds": Family(
        "Stages on the way to a score: parse a body (not a small JSON one: that is as quick as timing it), "
        "score a group of requests, commit it to disk.",
        ("stage",),
        SECONDS,
    ),
    "edge_ai_group_rows": Family("Rows in one call of the model.", (), ROWS),
    "edge_ai_group_requests": Family("Requests whose rows were scored; many share one call of the model."),
    "edge_ai_commit_rows": Family("Rows in one commit to disk.", (), ROWS),
    "edge_ai_commit_requests": Family("Requests that were committed; many share one commit."),
    "edge_ai_rows": Family("Rows scored."),
    "edge_ai_positive_rows": Family("Rows scored at or above the threshold."),
    "edge_ai_outside_values": Family("Values outside the range that was trained on.", ("input",)),
    "edge_ai_missing_values": Family("Values that were missing.", ("input",)),
    "edge_ai_waiting_bytes": Family("Large bodies that wait to be scored.", gauge=True),
    "edge_ai_connections": Family("Open connections.", gauge=True),
    "edge_ai_release_info": Family("What is served.", ("site", "digest", "version"), gauge=True),
    "edge_ai_outbox_rows": Family("Rows in the outbox, by what became of them.", ("state",), gauge=True),
    "edge_ai_outbox_scored": Family("Rows that were ever scored here."),
    "edge_ai_outbox_bytes": Family("Size of the outbox.", gauge=True),
    "edge_ai_outbox_oldest_pending_seconds": Family("Age of the oldest row that waits.", gauge=True),
    "edge_ai_disk_free_bytes": Family("What is left on the disk of the outbox.", gauge=True),
}


class Metrics:
    """The counters of this process. Any thread may count; it takes one or two microseconds.

    Args:
        folder: of the site, shared by all workers; None if this process is alone.
        contract: its inputs get counters of their own.
    """

    def __init__(self, folder: Path | None, contract: Contract) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._codes = {code: place for place, code in enumerate(CODES)}
        self._series: list[Series] = []
        self._end = 0
        self._stages = {stage: self._place("edge_ai_stage_seconds", stage) for stage in STAGES}
        self._group_rows = self._place("edge_ai_group_rows")
        self._group_requests = self._place("edge_ai_group_requests")
        self._commit_rows = self._place("edge_ai_commit_rows")
        self._commit_requests = self._place("edge_ai_commit_requests")
        self._rows = self._place("edge_ai_rows")
        self._positive = self._place("edge_ai_positive_rows")
        self._waiting = self._place("edge_ai_waiting_bytes")
        self._connections = self._place("edge_ai_connections")
        self._inputs = len(contract.inputs)
        self._by_input = self._end
        for name in ("edge_ai_outside_values", "edge_ai_missing_values"):
            for item in contract.inputs:
                self._place(name, item.name)
        self._requests: list[tuple[int, int]] = []
        self._counters = Counters([])
        self._count_in(None)

    def routes(self, names: Iterable[str]) -> dict[str, int]:
        """The number that `answered` takes for each route, and one for OTHER. Called once, at first."""
        numbers = {name: number for number, name in enumerate([*names, OTHER])}
        for name in numbers:
            first = self._end
            for code in (*CODES, OTHER):
                self._place("edge_ai_requests", name, str(code))
            self._requests.append((first, self._place("edge_ai_request_seconds", name)))
        self._count_in(self._folder)
        return numbers

    def answered(self, route: int, status: int, seconds: float) -> None:
        """A request was answered, so long after it had come whole."""
        codes, histogram = self._requests[route]
        place = codes + self._codes.get(status, len(CODES))
        with self._lock:
            self._values[place] += 1
            self._observe(histogram, SECONDS, seconds)

    def parsed(self, seconds: float) -> None:
        """A body was read."""
        with self._lock:
            self._observe(self._stages["parse"], SECONDS, seconds)

    def scored(self, rows: int, positive: int, requests: int, seconds: float) -> None:
        """A group of requests was scored by one call of the model, `positive` rows at or above the
        threshold."""
        with self._lock:
            self._values[self._rows] += rows
            self._values[self._positive] += positive
            self._observe(self._stages["score"], SECONDS, seconds)
            self._observe(self._group_rows, ROWS, rows)
            self._values[self._group_requests] += requests

    def committed(self, rows: int, requests: int, seconds: float) -> None:
        """The rows of some requests were committed to disk at once."""
        with self._lock:
            self._observe(self._stages["commit"], SECONDS, seconds)
            self._observe(self._commit_rows, ROWS, rows)
            self._values[self._commit_requests] += requests

    def odd(self, outside: np.ndarray, missing: np.ndarray) -> None:
        """Values outside the trained range, and values missing, by input; shape (inputs,)."""
        with self._lock:
            self._outside += outside
            self._missing += missing

    def connected(self, connections: int) -> None:
        """So many connections are open now."""
        self._values[self._connections] = connections

    def render(
        self,
        *,
        site: str,
        release: str,
        version: int,
        outbox: Mapping[str, float],
        outbox_bytes: int,
        oldest_pending: float | None,
        disk_free: int,
        waiting: int,
    ) -> bytes:
        """The body of an answer to GET /metrics; `text/plain; version=0.0.4`.

        Args:
            outbox: rows by what became of them, as `Outbox.counts`.
            oldest_pending: seconds since the oldest row that still has a way to go; None if there is none.
            disk_free: bytes that the outbox's disk has left.
            waiting: bytes of large bodies, of this worker.
        """
        self._values[self._waiting] = waiting
        given: dict[str, Values] = {
            "edge_ai_release_info": {(site, release, str(version)): 1.0},
            "edge_ai_outbox_rows": {(state,): rows for state, rows in outbox.items() if state != "scored"},
            "edge_ai_outbox_scored": {(): outbox["scored"]},
            "edge_ai_outbox_bytes": {(): outbox_bytes},
            "edge_ai_outbox_oldest_pending_seconds": {(): oldest_pending or 0.0},
            "edge_ai_disk_free_bytes": {(): disk_free},
        }
        return exposition.text(FAMILIES, given, list(self._workers()))

    def _workers(self) -> Iterator[Worker]:
        if self._folder is not None:
            yield from workers(self._folder)
            return
        values: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        at = 0
        for name, labels, width in self._series:
            values[name, labels] = list(self._values[at : at + width])
            at += width
        yield Worker(os.getpid(), True, values)

    def _place(self, name: str, *labels: str) -> int:
        """Add a series; where its values begin."""
        bounds = FAMILIES[name].bounds
        # A histogram: one value a bucket, one for what is above the last, and the sum.
        series = Series(name, labels, len(bounds) + 2 if bounds else 1)
        self._series.append(series)
        first, self._end = self._end, self._end + series.width
        return first

    def _count_in(self, folder: Path | None) -> None:
        """Go on counting in all series that there are now; new ones are behind the old ones."""
        fresh = Counters(self._series, folder)
        with self._lock:
            before = self._counters.values
            fresh.values[: len(before)] = before
            self._counters, self._values = fresh, fresh.values
            by_input = np.asarray(fresh.values)[self._by_input :][: 2 * self._inputs]
            self._outside, self._missing = by_input[: self._inputs], by_input[self._inputs :]

    def _observe(self, place: int, bounds: Sequence[float], value: float) -> None:
        """Count a value in a histogram; the lock is held."""
        values = self._values
        values[place + bisect_left(bounds, value)] += 1
        values[place + len(bounds) + 1] += value
