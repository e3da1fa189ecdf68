"""What a request asks for, whatever its body was written in: rows to score, or what users said of scores.

Pure: no server, no disk, no clock. Bodies are read in `bodies` and all meet in `Rows`; scoring is `scorer`'s.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from edge_ai_assets.returns.outbox.outbox import Feedback
from edge_ai_assets.scoring import context as contexts
from edge_ai_assets.scoring.contract import Contract, ContractError
from edge_ai_assets.scoring.refused import Refused

MAX_ROWS = 100_000
MAX_FEEDBACK = 10_000
_NUMBER = re.compile("[1-9][0-9]{0,17}")
"""Of a score, in its id: in one spelling, so that two ids are never of one score."""


class Rows(NamedTuple):
    """The rows of a request, of the kinds that the contract asks for; their ranges are not checked yet."""

    number: int
    wide: Any
    """As Contract.widened gives it; or a list of rows, None where a number is missing."""
    texts: dict[str, Sequence[str | None]]
    """What was given for each input that is a category."""
    context: dict[str, list[Any]]
    """As context.checked gives it."""
    columnar: bool = False
    """Whether JSON rows came by columns, and are answered so."""


class FeedbackItem(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(max_length=100)]
    correct: bool
    note: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    role: Annotated[str, msgspec.Meta(max_length=40)] = ""


class FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/feedback."""

    items: list[FeedbackItem]


def of_columns(columns: Mapping[str, Any], context: Mapping[str, Sequence[Any]], contract: Contract) -> Rows:
    """Rows from columns of values and of context.

    Raises:
        Refused: 422 the contract refuses a field, the kind of a value or a length.
    """
    try:
        wide = contract.widened(columns)
    except ContractError as error:
        raise Refused(422, str(error)) from error
    texts = {
        item.name: columns.get(item.name) or [None] * len(wide)
        for item in contract.inputs
        if item.kind == "category"
    }
    return Rows(len(wide), wide, texts, checked(context, len(wide)))


def feedback(site: str, items: Sequence[FeedbackItem], now: int, role: str | None = None) -> list[Feedback]:
    """Check what users said.

    Args:
        role: of the token they came with; without tokens each item may name its own.

    Raises:
        Refused: 404 an id that is none of this site; 413 too many items; 422 none.
    """
    if not items:
        raise Refused(422, "items is empty")
    if len(items) > MAX_FEEDBACK:
        raise Refused(
            413, f"{len(items)} items are too many for one request, at most {MAX_FEEDBACK} are taken"
        )
    result = []
    for item in items:
        owner, _, number = item.id.rpartition("/")
        if owner != site or not _NUMBER.fullmatch(number):
            raise Refused(404, f"there is no score {item.id!r} on this site; an id is {site}/NUMBER")
        result.append(Feedback(int(number), item.correct, item.note, role or item.role, now))
    return result


def limit(rows: int, what: str, most: int = MAX_ROWS) -> None:
    """Refuse a request without rows, or with too many."""
    if not rows:
        raise Refused(422, f"{what} holds no row")
    if rows > most:
        raise Refused(413, f"{rows} rows are too many for one request, at most {most} are taken")


def matrix(rows: Rows) -> np.ndarray:
    """`Rows.wide` as an array, float64, shape (n, inputs)."""
    return np.asarray(rows.wide, np.float64)


def fingerprint(rows: Rows, contract: Contract) -> bytes:
    """Digest of what a request asks to be scored, however it was written; of 16 bytes.

    By the names of the inputs: a request that is sent again while releases change is still the same.
    """
    found = hashlib.blake2b(digest_size=16)
    columns = matrix(rows).T
    for position, item in sorted(enumerate(contract.inputs), key=lambda each: each[1].name):
        values = rows.texts.get(item.name)
        column = columns[position].tobytes() if values is None else msgspec.msgpack.encode(list(values))
        found.update(msgspec.msgpack.encode((item.name, column)))
    found.update(msgspec.msgpack.encode(sorted(_in_one_form(rows.context).items())))
    return found.digest()


def _in_one_form(context: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Context in which it makes no difference whether a column says nothing or is not there.

    If any says something, those that every request could have from the first on are there: so a key that was
    used before _asset was added is still known.
    """
    said = {name: values for name, values in context.items() if list(values).count(None) < len(values)}
    if not said:
        return {}
    nothing = [None] * len(next(iter(said.values())))
    return dict.fromkeys(("_time", "_run", "_row"), nothing) | said


def checked(context: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    """Context columns as `context.checked` gives them; what it refuses is answered 422."""
    try:
        return contexts.checked(context, rows)
    except ContractError as error:
        raise Refused(422, str(error)) from error
