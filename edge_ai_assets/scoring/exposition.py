"""Numbers in the words that Prometheus reads: its text format, by its own Python client.

What the numbers are is told to it; how much a process uses is read here, from /proc.

Source: Prometheus, "Exposition formats", text-based format 0.0.4.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_ai_assets.scoring.counters import Worker

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Values = Mapping[tuple[str, ...], float]
"""By the values of the labels."""


class Family(NamedTuple):
    """A metric: a histogram if it has bounds, else a gauge or a counter."""

    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    gauge: bool = False


PROCESS = {
    "edge_ai_worker_start_time_seconds": Family(
        "When a worker started, since 1970.", ("worker",), gauge=True
    ),
    "edge_ai_worker_resident_memory_bytes": Family("Memory of a worker.", ("worker",), gauge=True),
    "edge_ai_worker_open_fds": Family("Open files and connections of a worker.", ("worker",), gauge=True),
    "edge_ai_worker_cpu_seconds": Family("CPU time of a worker.", ("worker",)),
}


def text(families: Mapping[str, Family], given: Mapping[str, Values], workers: Sequence[Worker]) -> bytes:
    """The text of all metrics that have a value.

    Args:
        families: by name; that of a counter without its ending `_total`.
        given: values that hold for the whole site.
        workers: what each has counted. Counters of all are added up, gauges of those that live.
    """
    # Here, since it is 25 ms and 3 MB: a worker that nobody asks does without.
    from prometheus_client.exposition import generate_latest

    sums: dict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)
    for name, values in given.items():
        sums[name] = {labels: [value] for labels, value in values.items()}
    for worker in workers:
        for (name, labels), counted in worker.values.items():
            if name in families and (worker.alive or not families[name].gauge):
                before = sums[name].get(labels, [0.0] * len(counted))
                sums[name][labels] = [a + b for a, b in zip(before, counted, strict=True)]
    found = [_metric(name, families[name], sums[name]) for name in families if name in sums]
    found += _processes([worker.pid for worker in workers if worker.alive])
    return generate_latest(_Collected(found))


class _Collected(NamedTuple):
    """What `generate_latest` asks for."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics


def _metric(name: str, family: Family, values: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    """A metric with its values; one that has labels shows only what was counted at least once."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if family.bounds:
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        bounds = [*map(_bound, family.bounds), "+Inf"]
        for labels, counted in values.items():
            *buckets, total = counted
            if any(buckets) or not family.labels:
                histogram.add_metric(labels, list(zip(bounds, accumulate(buckets), strict=True)), total)
        return histogram
    kind = GaugeMetricFamily if family.gauge else CounterMetricFamily
    simple = kind(name, family.help, labels=family.labels)
    for labels, (value,) in values.items():
        if value or family.gauge or not family.labels:
            simple.add_metric(labels, value)
    return simple


def _bound(bound: float) -> str:
    return f"{bound:.12g}"


def _processes(pids: Sequence[int]) -> Iterator[Metric]:
    """What the kernel says of living workers; nothing where there is no /proc."""
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in PROCESS}
    for pid in pids:
        folder = Path("/proc") / str(pid)
        with suppress(FileNotFoundError, ProcessLookupError):  # ended just now
            # Behind the name, which is in parentheses and may hold any character; see proc(5).
            stat = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            boot = next(
                line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
            )
            numbers = (
                int(boot.split()[1]) + int(stat[19]) / ticks,
                int(stat[21]) * page,
                len(os.listdir(folder / "fd")),
                (int(stat[11]) + int(stat[12])) / ticks,
            )
            for name, number in zip(PROCESS, numbers, strict=True):
                found[name][str(pid),] = [number]
    for name, values in found.items():
        yield _metric(name, PROCESS[name], values)
