"""The lineage envelope, version 1: one event of a site's own Dagster as one line of JSON, and what of it may
leave.

Which events there are is `stack_hub.events`' work, what becomes of them on Azure `azure.replay`'s. Standard
library and msgspec only, and nothing of Dagster: the lines outlive its version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

VERSION = 1
MAX_LINE = 64 * 1024
"""Bytes of a line."""
MAX_TEXT = 200
"""Characters of a text in the metadata."""
MAX_LIST = 300
"""Texts in a list: a run that packs more names only the newest."""
MAX_TIME = 253_370_764_800_000_000
"""µs of the year 9999, from which on calendars fail in some time zones."""

REPLAYED = "edge_ai/n"
"""Metadata of an event that was brought here from a site: it is never sent on."""

WORD = re.compile(r"[\w.:+@-]{1,200}", re.ASCII)
"""A text that may leave: a name, a version, a digest. No sentence and no path is one."""
RUN = re.compile(r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?")
"""Id of a run, or none. Dagster names files by it."""
DESCRIPTION = re.compile(
    r"not serving: [\w ,.-]+|all \d+ sites serve|does not hold at [\w ,.-]+|holds at all \d+ sites", re.ASCII
)
"""What a check may say: the fixed texts of `stack_hub.assets`, with names of sites and counts."""


def _names(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in text.split())


_PACKAGES = "packages package_names bytes"
ALLOWED: Mapping[str, frozenset[str]] = {
    "site/release": _names("release image model training_set training_run bundles_refused"),
    "site/deployment": _names("release image former_release ring rollout to"),
    "site/scores": _names(
        "dagster/row_count scored_rows rejected_rows baseline_rows anomalies",
        "files unreadable_files rows_per_second release",
    ),
    "site/insights": _names("anomaly normal quarantined rows anomaly_rate"),
    "site/egress": _names(
        _PACKAGES,
        "packed_rows packed_feedback withheld_rows policy pruned_rows pruned_packages expired_rows",
    ),
    "site/upload": _names(
        _PACKAGES,
        "road acknowledged_packages waiting_packages link link_before seconds_before flaps changed_at",
        "outbox_scored outbox_uploaded outbox_withheld outbox_quarantined outbox_expired outbox_pending",
    ),
}
"""Names of metadata that may leave, by asset; all others stay, whatever their value.

Counts, versions, digests, names of packages and of states. Free text may quote readings, and a table may hold
some: they stay. So does how many rows were outside the range of training: that is told by the kind
`aggregate`, which knows which rows stay.
"""
MEANING: Mapping[str, tuple[str, frozenset[str]]] = {
    "site/scores": ("scored_rows", _names("anomalies")),
    "site/insights": ("rows", _names("anomaly normal anomaly_rate")),
}
"""Of these names those that tell what the scores of a run mean, by asset; before them, of how many."""
CHECKS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "site/deployment": {"serving": _names("serving not_serving")},
    "site/upload": {"conservation": _names("sites_broken scored pending")},
}
"""Names of checks that may leave, by asset, and of their metadata."""

Kind = Literal["materialization", "observation", "check"]
KINDS: tuple[str, ...] = get_args(Kind)
Value = bool | int | float | str | list[str]


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a check went."""

    name: str
    passed: bool
    severity: Literal["WARN", "ERROR"]
    description: str = ""


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the site's Dagster recorded once."""

    n: int
    """Counts the site's lineage events from 1, without gaps, in the order of its event log."""
    kind: Kind
    asset: tuple[str, ...]
    partition: str
    """The site."""
    at: int
    """µs since 1970, UTC, by the site's clock."""
    run: str
    """Id of the site's run; '' for an event without one."""
    job: str = ""
    metadata: dict[str, Value] = {}
    check: Check | None = None
    v: int = VERSION

    @property
    def key(self) -> str:
        """The asset's key as one text, `site/scores`."""
        return "/".join(self.asset)


def encode(event: Event) -> bytes:
    """The event's line, without a line feed: the same event gives the same bytes.

    Raises:
        ValueError: it breaks a bound of the envelope, or holds what may not leave a site.
    """
    _bounded(event)
    _listed(event)
    line = msgspec.json.encode(event, order="sorted")
    if len(line) > MAX_LINE:
        raise ValueError(
            f"lineage event {event.n}: the line has {len(line):,} bytes, {MAX_LINE:,} are allowed"
        )
    return line


def decode(line: bytes) -> Event:
    """The event of a line.

    What may leave is decided where it leaves: names that are on no list here are a newer version's, and kept.

    Raises:
        ValueError: another version, malformed, or a bound is broken; the message says what.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"lineage line: {len(line):,} bytes, {MAX_LINE:,} are allowed")
    try:
        version = msgspec.json.decode(line, type=_Versioned).v
        if version != VERSION:
            raise ValueError(f"lineage version {version}, this version reads {VERSION}; upgrade it first")
        event = msgspec.json.decode(line, type=Event)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        raise ValueError(f"lineage line: {error}") from error
    _bounded(event)
    return event


def allowed(
    asset: str, metadata: Mapping[str, Any], check: str = "", smallest: int | None = None
) -> dict[str, Value]:
    """What of an event's metadata may leave: names on its list, with a value of a kind that may.

    Args:
        asset: its key, `site/scores`.
        metadata: bare values by name.
        check: name of the check that it is about; '' if it is about the asset itself.
        smallest: rows of a run of which what they mean may be told, as `Policy.told_by_run`; None: of none.
    """
    counted, meaning = MEANING.get(asset, ("", frozenset[str]()))
    kept, rows = _listed_in(asset, metadata, check), metadata.get(counted)
    if smallest is None or type(rows) is not int or rows < smallest:
        return {name: value for name, value in kept.items() if name not in meaning}
    return kept


def _listed_in(asset: str, metadata: Mapping[str, Any], check: str) -> dict[str, Value]:
    """The names that are on a list, whatever a policy says of them."""
    names = CHECKS.get(asset, {}).get(check, frozenset()) if check else ALLOWED.get(asset, frozenset())
    kept = {name: _list(value) for name, value in metadata.items() if name in names}
    return {name: value for name, value in sorted(kept.items()) if _may_leave(value)}


def described(text: str | None) -> str:
    """What a check says, if it is one of our own texts; else ''."""
    return text if text and len(text) <= MAX_TEXT and DESCRIPTION.fullmatch(text) else ""


def run_id(text: str) -> str:
    """The id of a run if it is one, else ''."""
    return text if RUN.fullmatch(text) else ""


def word(text: str | None) -> str:
    """A name if it is one that may leave, else ''."""
    return text if text and WORD.fullmatch(text) else ""


class _Versioned(msgspec.Struct):
    v: int


def _list(value: Any) -> Any:
    """Of a list that is too long the newest: packages are named in order."""
    return list(value)[-MAX_LIST:] if isinstance(value, list | tuple) else value


def _may_leave(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_LIST and all(isinstance(item, str) and _may_leave(item) for item in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _bounded(event: Event) -> None:
    """Raises ValueError: the event breaks a bound, whichever version wrote it."""
    where = f"lineage event {event.n}"
    if not 0 < event.n < 2**63:
        raise ValueError(f"{where}: events count from 1")
    if not 0 < event.at < MAX_TIME:
        raise ValueError(f"{where}: at is {event.at}, times are µs from 1970 to the year 9999")
    if len(event.asset) != 2 or event.asset[0] != "site":
        raise ValueError(f"{where}: asset {event.key[:MAX_TEXT]!r} is none of a site's, as site/scores is")
    if not RUN.fullmatch(event.run):
        raise ValueError(f"{where}: run must be the id of a run, a UUID in lower case, or empty")
    if (event.kind == "check") != (event.check is not None):
        raise ValueError(f"{where}: a check belongs to an event of kind check, and only to one")
    check = event.check or Check("none", True, "WARN")
    for name, text in (
        ("asset", event.asset[1]),
        ("partition", event.partition),
        ("job", event.job or "none"),
        ("check", check.name),
        *(("a name in metadata", name.replace("/", ".")) for name in event.metadata),
    ):
        if not WORD.fullmatch(text):
            raise ValueError(
                f"{where}: {name} must be a name of at most {MAX_TEXT} letters, digits and ._:+@-, "
                f"it has {len(text)} characters"
            )
    if len(check.description) > MAX_TEXT or not check.description.isprintable():
        raise ValueError(
            f"{where}: the check's description must be one line of at most {MAX_TEXT} characters"
        )
    for name, value in event.metadata.items():
        if not _may_leave(value):
            raise ValueError(
                f"{where}: metadata {name!r} must be a finite number, true or false, a name, or at most "
                f"{MAX_LIST} names"
            )


def _listed(event: Event) -> None:
    """Raises ValueError: the event holds what may not leave a site."""
    where = f"lineage event {event.n}"
    if event.key not in ALLOWED:
        raise ValueError(f"{where}: asset {event.key!r} is on no list")
    if event.check is not None:
        if event.check.name not in CHECKS.get(event.key, {}):
            raise ValueError(f"{where}: check {event.check.name!r} of {event.key} is on no list")
        if event.check.description != described(event.check.description):
            raise ValueError(f"{where}: the check's description is none of the texts that may leave")
    kept = _listed_in(event.key, event.metadata, event.check.name if event.check else "")
    if extra := sorted(set(event.metadata) - set(kept)):
        raise ValueError(f"{where}: metadata {extra[0]!r} of {event.key} is on no list")
