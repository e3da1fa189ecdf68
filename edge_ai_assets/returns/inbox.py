"""Azure's side of the way home: packages that came are checked and merged into the global Delta tables.

- `insights` by (site, sequence), `feedback` by (site, id), `histograms` by (site, package, release, feature);
- `packages` by (site, number), written last: it says what was received. A crash in between is healed by
  receiving again, since a merge adds only what is not there.

Packages stay in the uplink's folder and are recognised by their number. What the tables are good for is
decided by the assets that read them.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import clock, packages
from edge_ai_assets.returns.packages import MAX_BYTES, Package, PackageError
from edge_ai_assets.returns.parts import name_of
from edge_ai_assets.returns.tables import duplicates, existing, insight, merge

if TYPE_CHECKING:
    import pyarrow as pa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Received", "duplicates", "insight", "receive"]

ROWS = 500_000
"""A call that holds so many insights takes no further package: what it keeps in memory is bounded."""


class Received(msgspec.Struct, frozen=True):
    """What one call took in."""

    packages: int
    insights: int
    """Rows that are new in the table."""
    feedback: int
    repeated: int
    """Rows of insights and feedback that the tables had already, or that came more than once."""
    refused: list[tuple[str, str]]
    """Files moved to quarantine: (site/name, reason)."""
    waiting: list[tuple[str, int]]
    """Gaps: (site, number of the package that is missing) while later ones are there."""
    days: set[date]
    """Days (UTC) of the scores and feedback that came: what is derived from them per day is out of date."""


class _Site:
    """Where a site's chain of packages stands."""

    def __init__(self, number: int = 0, digest: str = "") -> None:
        self.number, self.digest = number, digest


def receive(
    uplink_root: Path,
    tables: Path,
    keys: Mapping[str, Sequence[Ed25519PublicKey]],
    quarantine: Path,
    *,
    limit: int = 100,
    max_bytes: int = MAX_BYTES,
    now: clock.Clock = clock.now,
) -> Received:
    """Take in the packages that came, in each site's order, at most `limit` of them.

    Args:
        uplink_root: a folder per site with its packages.
        tables: folder of the Delta tables, made when missing.
        keys: the public keys of each site.
        quarantine: where a refused file goes, with its reason beside it; never deleted.
        limit: most packages in one call; what is left waits for the next.
        max_bytes: a larger package is refused.
        now: the clock.

    One process at a time may receive into the same tables; others wait.
    """
    with durable.locked(tables / ".inbox.lock"):
        chains = _chains(tables)
        refused: list[tuple[str, str]] = []
        queue = _arrived(uplink_root, quarantine, chains, refused)
        accepted: list[Package] = []
        for site, number, path in queue:
            if len(accepted) == limit or sum(package.insights.num_rows for package in accepted) >= ROWS:
                break
            chain = chains[site]
            if number != chain.number + 1:
                continue
            try:
                accepted.append(_check(path, site, number, chain, keys, max_bytes))
            except PackageError as error:
                refused.append(_refuse(path, site, str(error), quarantine))
            else:
                chains[site] = _Site(number, accepted[-1].digest)
        arrived = defaultdict(set)
        for site, number, path in queue:
            if path.exists():
                arrived[site].add(number)
        waiting = []
        for site, numbers in sorted(arrived.items()):
            missing = chains[site].number + 1
            if missing not in numbers and max(numbers) > missing:
                waiting.append((site, missing))
        return _write(tables, accepted, refused, waiting, now())


def _chains(tables: Path) -> defaultdict[str, _Site]:
    chains: defaultdict[str, _Site] = defaultdict(_Site)
    if table := existing(tables, "packages"):
        for row in table.to_pyarrow_table(columns=["site", "number", "digest"]).to_pylist():
            if row["number"] > chains[row["site"]].number:
                chains[row["site"]] = _Site(row["number"], row["digest"])
    return chains


def _arrived(
    root: Path, quarantine: Path, chains: Mapping[str, _Site], refused: list[tuple[str, str]]
) -> list[tuple[str, int, Path]]:
    """New packages, each site's in order; the sites take turns, so that no backlog holds up the others."""
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.exists() else ():
        for path in folder.iterdir():
            if path.name.startswith(".") or not path.is_file():
                continue
            match = packages.NAME.fullmatch(path.name)
            if not match or path.name != name_of(folder.name, int(match["number"])):
                reason = f"this is not the name of a package of site {folder.name!r}"
                refused.append(_refuse(path, folder.name, reason, quarantine))
            elif (number := int(match["number"])) > chains[folder.name].number:
                found.append((folder.name, number, path))
    return sorted(found, key=lambda item: (item[1] - chains[item[0]].number, item[0]))


def _check(
    path: Path,
    site: str,
    number: int,
    chain: _Site,
    keys: Mapping[str, Sequence[Ed25519PublicKey]],
    max_bytes: int,
) -> Package:
    if site not in keys:
        raise PackageError(f"no key of site {site!r} is known: register the site, then put the package back")
    package = packages.read(path, keys[site], max_bytes=max_bytes)
    found = package.manifest
    if (found.site, found.number) != (site, number):
        raise PackageError(f"the signed manifest says package {found.number} of {found.site!r}")
    if found.previous != chain.digest:
        raise PackageError(
            f"it follows {found.previous or 'nothing'}, the last package received is {chain.digest or 'none'}"
        )
    return package


def _refuse(path: Path, site: str, reason: str, quarantine: Path) -> tuple[str, str]:
    folder = quarantine / site
    folder.mkdir(parents=True, exist_ok=True)
    target, copies = folder / path.name, 0
    while target.exists():
        copies += 1
        target = folder / f"{path.name}.{copies}"
    target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n", "utf-8")
    shutil.move(path, target)
    return f"{site}/{path.name}", reason


def _write(
    tables: Path,
    accepted: list[Package],
    refused: list[tuple[str, str]],
    waiting: list[tuple[str, int]],
    at: int,
) -> Received:
    import pyarrow as pa
    import pyarrow.compute as pc

    def gathered(part: str, moment: str = "") -> pa.Table:
        found = []
        for package in accepted:
            table: pa.Table = getattr(package, part)
            if moment:
                table = table.append_column("day", pc.cast(table[moment], pa.date32()))
            table = table.append_column("site", pa.repeat(package.manifest.site, table.num_rows))
            found.append(table.append_column("package", pa.repeat(package.manifest.number, table.num_rows)))
        return pa.concat_tables(found)

    if not accepted:
        return Received(0, 0, 0, 0, refused, waiting, set())
    insights, feedback = gathered("insights", "scored_at"), gathered("feedback", "given_at")
    new_insights = merge(tables, "insights", insights)
    new_feedback = merge(tables, "feedback", feedback)
    merge(tables, "histograms", gathered("histograms"))
    merge(tables, "packages", _receipts(accepted, at))
    return Received(
        packages=len(accepted),
        insights=new_insights,
        feedback=new_feedback,
        repeated=insights.num_rows + feedback.num_rows - new_insights - new_feedback,
        refused=refused,
        waiting=waiting,
        days=set(insights["day"].to_pylist()) | set(feedback["day"].to_pylist()),
    )


def _receipts(accepted: list[Package], at: int) -> pa.Table:
    import pyarrow as pa

    from edge_ai_assets.returns.tables import schemas

    rows = []
    for package in accepted:
        said = package.manifest
        rows.append(
            {
                "site": said.site,
                "number": said.number,
                "name": said.name,
                "digest": package.digest,
                "previous": said.previous,
                "policy": said.policy,
                "rows": package.insights.num_rows,
                "feedback": package.feedback.num_rows,
                "first": said.first,
                "last": said.last,
                "created_at": said.created_at,
                "received_at": at,
            }
        )
    return pa.Table.from_pylist(rows, schemas()["packages"])
