"""Azure's side of the way home: packages that came are checked and merged into the global Delta tables.

- `insights` and `lineage` by the site's own numbers, `feedback` by (site, id);
- `histograms`, `aggregates` and `sketches` by the package and what they are of;
- `packages` by (site, number), and last of all `watermarks` by site: it says what was received. A crash in
  between is healed by receiving again, since a merge adds only what is not there.

Packages stay in the uplink's folder and are recognised by their number. How rows are merged is `merging`'s
work; what the tables are good for is decided by the assets that read them.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns import clock
from edge_ai_assets.returns.inbox import heads, merging
from edge_ai_assets.returns.inbox.checking import check
from edge_ai_assets.returns.inbox.heads import Head
from edge_ai_assets.returns.inbox.tables import duplicates, insight
from edge_ai_assets.returns.package import packages
from edge_ai_assets.returns.package.archives import short
from edge_ai_assets.returns.package.foreign import Rejected, manifest_of
from edge_ai_assets.returns.package.packages import MAX_BYTES, Package, PackageError
from edge_ai_assets.returns.package.parts import name_of

if TYPE_CHECKING:
    import pyarrow as pa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Received", "arrived", "duplicates", "insight", "receive"]

ROWS, BYTES = 500_000, 256 * 1024 * 1024
"""A call that holds so many rows or bytes of them takes no further package: what it keeps in memory is
bounded."""


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
    """Days (UTC) of what came: what is derived from them per day is out of date."""
    lineage: int = 0
    """Lineage events that are new in the table."""
    failed: list[tuple[str, str]] = []
    """Sites whose packages could neither be merged nor refused, and stay where they are: (site, error)."""


def receive(
    uplink_root: Path,
    tables: Path,
    keys: Mapping[str, Sequence[Ed25519PublicKey]],
    quarantine: Path,
    *,
    limit: int = 100,
    max_bytes: int = MAX_BYTES,
    now: clock.Clock = clock.now,
    passing_over: Collection[str] = (),
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
        passing_over: sites whose packages are left alone.

    One process at a time may receive into the same tables; others wait. What is wrong with one site's
    packages holds up no other site.

    Raises:
        Exception: whatever the merge raised, if it can merge no site's packages: the tables are broken or out
            of reach.
    """
    with durable.locked(tables / ".inbox.lock"):
        before = heads.read(tables)
        chains = defaultdict(Head, before)
        refused: list[tuple[str, str]] = []
        failed: dict[str, str] = {}
        queue = _queue(uplink_root, quarantine, chains, refused)
        accepted: list[Package] = []
        rows = size = 0
        at = now()
        for site, number, path in queue:
            if len(accepted) == limit or rows >= ROWS or size >= BYTES:
                break
            if site in failed or site in passing_over:
                continue
            if number != chains[site].number + 1:
                if stray := _stray(path, site, number, keys):
                    refused.append(_refuse(path, site, stray, quarantine))
                continue
            try:
                package = _read(path, site, number, chains[site], keys, max_bytes)
            except PackageError as error:
                refused.append(_refuse(path, site, str(error), quarantine))
            except Exception as error:  # one unreadable file must not keep other sites' packages out
                failed[site] = short(f"{path.name}: {error!r}")
            else:
                accepted.append(package)
                chains[site] = _advanced(chains[site], package, at)
                rows += sum(table.num_rows for table in _tables(package)) + len(package.lineage)
                size += sum(table.nbytes for table in _tables(package)) + sum(map(len, package.lineage))
        merged, broken = _merge(tables, accepted, at)
        chains |= {site: before.get(site, Head()) for site in broken}
        if merged:
            heads.write(tables, {site: head for site, head in chains.items() if head.number})
        return Received(
            packages=sum(package.manifest.site not in broken for package in accepted),
            insights=sum(each.insights for each in merged),
            feedback=sum(each.feedback for each in merged),
            repeated=sum(each.repeated for each in merged),
            refused=refused,
            waiting=_waiting(queue, chains),
            days={day for each in merged for day in each.days},
            lineage=sum(each.lineage for each in merged),
            failed=sorted({**failed, **broken}.items()),
        )


def arrived(root: Path, known: Mapping[str, Head]) -> tuple[list[tuple[str, int, Path]], list[Path]]:
    """What is in the uplink's folders and was not received.

    Args:
        root: a folder per site.
        known: where the sites' chains stand. A package at or below its site's head costs a look at its name.

    Returns:
        Packages (site, number, path), and files whose names are none of a package of the folder's site.
    """
    new: list[tuple[str, int, Path]] = []
    strays: list[Path] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.exists() else ():
        site = folder.name
        head = known.get(site, Head()).number
        seen = _seen(site, head)
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or seen(name) or not entry.is_file():
                    continue
                match = packages.NAME.fullmatch(name)
                if not match or name != name_of(site, int(match["number"])):
                    strays.append(folder / name)
                elif (number := int(match["number"])) > head:
                    new.append((site, number, folder / name))
    return new, strays


def _seen(site: str, head: int) -> Callable[[str], bool]:
    """Whether a file's name is that of a package up to `head`, for the many that are: without a regular
    expression."""
    last, start = name_of(site, head), len(site) + 1

    def seen(name: str) -> bool:
        # Of two names of one length, the one with the lower number comes first.
        return (
            len(name) == len(last)
            and name <= last
            and name.startswith(last[:start])
            and name.endswith(".zip")
            and name.isascii()
            and name[start:-4].isdigit()
        )

    return seen


def _queue(
    root: Path, quarantine: Path, chains: Mapping[str, Head], refused: list[tuple[str, str]]
) -> list[tuple[str, int, Path]]:
    """New packages, each site's in order; the sites take turns, so that no backlog holds up the others."""
    new, strays = arrived(root, dict(chains))
    for path in strays:
        reason = f"this is not the name of a package of site {path.parent.name!r}"
        refused.append(_refuse(path, path.parent.name, reason, quarantine))
    return sorted(new, key=lambda item: (item[1] - chains[item[0]].number, item[0]))


def _read(
    path: Path,
    site: str,
    number: int,
    head: Head,
    keys: Mapping[str, Sequence[Ed25519PublicKey]],
    max_bytes: int,
) -> Package:
    if site not in keys:
        raise PackageError(_unknown(site))
    package = packages.read(path, keys[site], max_bytes=max_bytes)
    check(package, site, number, head)
    return package


def _stray(path: Path, site: str, number: int, keys: Mapping[str, Sequence[Ed25519PublicKey]]) -> str | None:
    """Why a file behind a gap is not the package that its name says, None when it is: a gap holds up what is
    published, so only the site itself may make one."""
    if site not in keys:
        return _unknown(site)
    try:
        said = manifest_of(path, keys[site])
    except Rejected as error:
        return str(error)
    if (said.site, said.number) != (site, number):
        return f"the signed manifest says package {said.number} of {said.site!r}"
    return None


def _unknown(site: str) -> str:
    return (
        f"no key of site {site!r} is known: take up its enrolment with `edge-ai site enrol "
        f"{site}.enrolment.json`, then bring the package again with `edge-ai returns import DIR`"
    )


def _advanced(head: Head, package: Package, at: int) -> Head:
    said = package.manifest
    return Head(
        number=said.number,
        digest=package.digest,
        complete=None if said.complete < 0 else said.complete,
        waiting=None if said.counts is None else said.counts.waiting,
        lineage=head.lineage + len(package.lineage),
        created_at=said.created_at,
        received_at=at,
    )


def _merge(tables: Path, accepted: Sequence[Package], at: int) -> tuple[list[merging.Merged], dict[str, str]]:
    """Merge all at once, or site by site if that fails; and the sites whose packages could not be merged."""
    if not accepted:
        return [], {}
    by_site: dict[str, list[Package]] = {}
    for package in accepted:
        by_site.setdefault(package.manifest.site, []).append(package)
    try:
        return [merging.write(tables, accepted, at)], {}
    except Exception:
        if len(by_site) == 1:
            raise
    done, broken = [], {}
    for site, theirs in by_site.items():
        try:
            done.append(merging.write(tables, theirs, at))
        except Exception as error:
            broken[site] = short(repr(error))
            if len(broken) == len(by_site):
                raise
    return done, broken


def _waiting(queue: Sequence[tuple[str, int, Path]], chains: Mapping[str, Head]) -> list[tuple[str, int]]:
    there: defaultdict[str, set[int]] = defaultdict(set)
    for site, number, path in queue:
        if path.exists():  # what was refused is not
            there[site].add(number)
    gaps = []
    for site, numbers in sorted(there.items()):
        missing = chains[site].number + 1
        if missing not in numbers and max(numbers) > missing:
            gaps.append((site, missing))
    return gaps


def _refuse(path: Path, site: str, reason: str, quarantine: Path) -> tuple[str, str]:
    reason = short(reason)
    folder = quarantine / site
    folder.mkdir(parents=True, exist_ok=True)
    target, copies = folder / path.name, 0
    while target.exists():
        copies += 1
        target = folder / f"{path.name}.{copies}"
    target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n", "utf-8")
    shutil.move(path, target)
    return f"{site}/{path.name}", reason


def _tables(package: Package) -> Iterator[pa.Table]:
    for part in ("insights", "feedback", "histograms", "aggregates", "sketches"):
        yield getattr(package, part)
