"""From the outbox to the spool: one step of a site's egress makes one sealed return package.

Which rows go in is `selection`'s matter, what the policy makes of them `content`'s; `packages` gives it its
form, the outbox records it. Sending it is `uplink`'s work.

The order makes it safe to be killed anywhere: the file is written first, then the outbox seals it. An
unsealed file is overwritten by the next attempt under the same number; no row is in two sealed packages.
Where the lineage events of a package end stands in the row that seals it, so none is skipped or sent twice.

Sealing and expiring must not run at the same time: what expires while a package is built would be missing
from the rows it claims. Whoever expires takes `lock` of the same spool.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.returns.egress.policy import Policy
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import PackageRow, Tally
from edge_ai_assets.returns.package import packages, selection
from edge_ai_assets.returns.package.content import Content
from edge_ai_assets.returns.package.parts import MAX_INVENTORY, EventMark, EventSource, name_of
from edge_ai_assets.scoring.contract import Contract

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


READ_ONLY = 0o444
"""Mode of a sealed file: laid out, it is the spool's under a second name, and nobody may write to it."""


class SpoolFull(RuntimeError):
    """The packages in the spool that are not acknowledged hold as much as they may: nothing was packed.

    What waits stays in the outbox, where it can expire by its value; a sealed package cannot.
    """


class Sealed(msgspec.Struct, frozen=True):
    """What one step packed."""

    package: PackageRow
    path: Path
    histograms: int
    notes_dropped: int
    """Feedback whose free text stayed because nobody listed it."""
    aggregates: int = 0
    sketches: int = 0
    events: int = 0
    """Of lineage."""


def pack(
    outbox: Outbox,
    site: str,
    policy: Policy,
    contracts: Mapping[str, Contract],
    key: Ed25519PrivateKey,
    spool: Path,
    *,
    at: int,
    limit: int = 50_000,
    events: EventSource | None = None,
    inventory: Sequence[str] = (),
    running: str = "",
    window_minutes: int = 60,
    spool_bytes: int | None = None,
    outbox_bytes: int | None = None,
    stays: Counter[str] | None = None,
) -> Sealed | None:
    """Apply the policy to what waits and seal what may leave as one package.

    Feedback and anomalies go first, then the other scores, the oldest first among equals.

    Args:
        outbox: of the site.
        site: its name.
        policy: says what may leave.
        contracts: by release; scores of a release without one leave without derived inputs and histograms.
        key: the site's private signing key.
        spool: folder of sealed packages, made when missing.
        at: now, µs since 1970, UTC.
        limit: most scores, and most feedback, that one package accounts for; selection.MAX_PACKED
            bounds both.
        events: where the site's lineage events come from. They leave if the policy lists the kind `lineage`,
            and a package is made for them alone: packing itself makes such events, so whoever packs until
            nothing waits gives none after the first package.
        inventory: digests of the blobs that the site's store has; the first MAX_INVENTORY are told.
        running: digest of the release image that scores now.
        window_minutes: of the aggregates.
        spool_bytes: nothing is packed while the files of packages without an acknowledgement hold that many;
            None for no bound. One package may go over it.
        outbox_bytes: no normal scores are packed while those that such packages account for hold that many
            of the outbox; None for no bound.
        stays: gets the scores and feedback that stay, by reason: also those that no package tells of.

    Returns:
        What was sealed; None when nothing is left that may leave. Either way, records that may not leave are
        withheld, and those that cannot be read are quarantined.

    Raises:
        SpoolFull: see `spool_bytes`.
        ValueError: `events` skipped a number.
    """
    with lock(spool):
        outbox.recover()
        _make_room(outbox, site, spool_bytes)
        last = outbox.last_package()
        mark = EventMark(last.event_id, last.event_number) if last else EventMark()
        lines: list[bytes] = []
        if events and "lineage" in policy.egress.kinds:
            lines, mark = selection.lineage(events, mark)
        normal = None if outbox_bytes is None else outbox.may_be_packed(outbox_bytes)
        while True:
            content = Content(policy, contracts)
            more = selection.take(outbox, content, limit, window_minutes, normal)
            outbox.dispose("quarantined", content.broken)
            if content or lines:
                break
            outbox.dispose("withheld", content.withheld)
            outbox.dispose("withheld", content.withheld_feedback, table="feedback")
            if stays is not None:
                stays.update(content.reasons)
            if not more:
                return None
        number, previous = (last.number + 1, last.digest) if last else (1, "")
        accounted = set(content.sequences)
        complete = outbox.complete_through(accounted)
        data = packages.build(
            site=site,
            number=number,
            previous=previous,
            policy=policy.digest,
            created_at=at,
            first=min(accounted, default=0),
            last=max(accounted, default=0),
            insights=content.insights,
            feedback=content.words,
            histograms=content.histograms,
            aggregates=content.aggregates,
            sketches=content.sketches,
            lineage=lines,
            lineage_last=mark.number,
            complete=complete,
            counts=_counts(outbox, content),
            expired=outbox.expired_for(number),
            inventory=sorted(inventory)[:MAX_INVENTORY],
            running=running,
            key=key,
        )
        package = PackageRow(
            number=number,
            name=name_of(site, number),
            digest=hashlib.sha256(data).hexdigest(),
            previous=previous,
            rows=len(content.packed),
            feedback=len(content.words),
            bytes=len(data),
            created_at=at,
            complete=complete,
            event_id=mark.storage_id,
            event_number=mark.number,
        )
        with durable.replacing(spool / package.name, READ_ONLY) as file:
            file.write(data)
        outbox.seal(
            package,
            content.packed,
            [item.id for item in content.words],
            content.withheld,
            content.withheld_feedback,
        )
        if stays is not None:
            stays.update(content.reasons)
    return Sealed(
        package=package,
        path=spool / package.name,
        histograms=len(content.histograms),
        notes_dropped=content.notes_dropped,
        aggregates=len(content.aggregates),
        sketches=len(content.sketches),
        events=len(lines),
    )


def lock(spool: Path) -> AbstractContextManager[object]:
    """Held by whoever seals packages of this spool, or lets expire what they could hold."""
    return durable.locked(spool / ".packing.lock")


def _make_room(outbox: Outbox, site: str, spool_bytes: int | None) -> None:
    if spool_bytes is None:
        return
    number, held = outbox.unacknowledged()
    if held >= spool_bytes:
        raise SpoolFull(
            f"site {site!r}: {number} packages of {held} bytes are not acknowledged, the bound is "
            f"{spool_bytes}: nothing more is packed until an acknowledgement comes, or is brought"
        )


def _counts(outbox: Outbox, content: Content) -> Tally:
    """The outbox's tally as it will be when the package is sealed."""
    now = outbox.tally()
    packed = len(content.packed)
    withheld = len(content.sequences) - packed
    return msgspec.structs.replace(
        now,
        packed=now.packed + packed,
        withheld=now.withheld + withheld,
        waiting=now.waiting - packed - withheld,
    )
