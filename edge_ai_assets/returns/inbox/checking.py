"""Whether a package may be merged where its site's chain stands: what its signature alone does not say.

A site's key says who sent a package, not that its values can be kept. What would break the tables for the
other sites is refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.merging import END
from edge_ai_assets.returns.inbox.tables import KEYS, MAY_BE_NULL
from edge_ai_assets.returns.package import lineage, sketches
from edge_ai_assets.returns.package.packages import Package, PackageError

if TYPE_CHECKING:
    import pyarrow as pa

TIMES = {"insights": "scored_at", "feedback": "given_at", "aggregates": "window"}
PARTS = (*TIMES, "histograms", "sketches")
LARGEST = 2**63 - 1


def check(package: Package, site: str, number: int, head: Head) -> None:
    """Raise PackageError unless this is the site's package `number` and follows `head` in chain and lineage,
    and every key, release and time in it can be kept."""
    said = package.manifest
    if (said.site, said.number) != (site, number):
        raise PackageError(f"the signed manifest says package {said.number} of {said.site!r}")
    if said.previous != head.digest:
        raise PackageError(
            f"it follows {said.previous or 'nothing'}, the last package received is {head.digest or 'none'}"
        )
    _check_numbers(package)
    for part in PARTS:
        _check_rows(part, getattr(package, part))
    _check_counts(package)
    _check_lineage(package, head)


def _check_numbers(package: Package) -> None:
    said = package.manifest
    if not 0 <= said.created_at < END:
        raise PackageError(f"the manifest's created_at is {said.created_at}, it must be from 0 to {END} µs")
    counts = msgspec.structs.asdict(said.counts) if said.counts else {}
    numbers = {"complete": said.complete, "first": said.first, "last": said.last, **counts}
    for name, value in numbers.items():
        if not -1 <= value <= LARGEST:
            raise PackageError(f"the manifest's {name} is {value}, it must be from -1 to {LARGEST}")


def _check_rows(part: str, table: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    needed = {*KEYS[part], TIMES.get(part, ""), "release", "counts", "sketch", "rows"} - {MAY_BE_NULL}
    for name in sorted(needed & set(table.column_names)):
        if table[name].null_count:
            raise PackageError(f"{part}: {table[name].null_count} rows have no {name}")
    if (moment := TIMES.get(part)) and table.num_rows:
        bounds = pc.min_max(table[moment].cast(pa.int64())).as_py()
        if not 0 <= bounds["min"] <= bounds["max"] < END:
            raise PackageError(
                f"{part}: {moment} is from {bounds['min']} to {bounds['max']} µs since 1970, "
                f"it must be from 0 to {END}"
            )


def _check_counts(package: Package) -> None:
    """What drift is seen in: histograms and sketches that can be added up."""
    import pyarrow.compute as pc

    counts = pc.list_flatten(package.histograms["counts"])
    if counts.null_count or (len(counts) and pc.min(counts).as_py() < 0):
        raise PackageError("histograms: counts must be 0 or more")
    for row in package.sketches.to_pylist():
        try:
            sketches.read(row["sketch"], row["rows"], row["k"])
        except sketches.SketchError as error:
            raise PackageError(f"sketches: that of {row['feature']!r} cannot be read: {error}") from error


def _check_lineage(package: Package, head: Head) -> None:
    """Numbers without a gap; a line that this version cannot read has the number of its place."""
    said, lines = package.manifest.lineage, package.lineage
    expected = (head.lineage + 1, head.lineage + len(lines)) if lines else (0, 0)
    if said != expected:
        raise PackageError(
            f"its lineage events are {said[0]} to {said[1]}, {expected[0]} to {expected[1]} would follow "
            f"event {head.lineage}"
        )
    for n, line in enumerate(lines, expected[0]):
        try:
            event = lineage.decode(line)
        except ValueError:  # `merging` keeps it as it came
            continue
        if event.n != n:
            raise PackageError(f"its lineage event {n} has the number {event.n}")
