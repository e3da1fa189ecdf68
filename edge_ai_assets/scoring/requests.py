"""From the body of a request to checked rows, and from scores to the body of the answer.

Pure: no server, no disk, no clock. JSON is read here, other kinds of bodies in `csv_body`, `arrow_body` and
`oip`; all meet in `Rows`. Which path leads here is `app`'s work, scoring is `scorer`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from edge_ai_assets.returns.outbox import Feedback
from edge_ai_assets.scoring import context as contexts
from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY, Contract, ContractError
from edge_ai_assets.scoring.refused import Refused

T = TypeVar("T")
MAX_ROWS = 100_000
MAX_FEEDBACK = 10_000
EPOCH = datetime(1970, 1, 1)
ESCAPED = frozenset('"\\') | frozenset(map(chr, range(32)))
"""Characters that JSON escapes."""

_encode = msgspec.json.Encoder().encode


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


class Head(NamedTuple):
    """What is the same for all rows of an answer, and for all requests that were scored together."""

    release: str
    scored_at: int
    """µs since 1970, UTC."""
    threshold: float | None
    """None if another release than those that are served scored it: only its own contract knows."""
    repeated: bool = False
    """The request was answered before; this is what was scored then."""


class Answer(NamedTuple):
    """The scores of a request; the three sequences have one length, at least 1."""

    first: int
    scores: list[float]
    predicted: list[bool]
    outside: list[bool]
    head: Head


class Context(msgspec.Struct, forbid_unknown_fields=True, rename="_{}".format):
    """What a row belongs to, one value a row; no input of the model."""

    time: list[Any] | None = None
    run: list[Any] | None = None
    row: list[Any] | None = None


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/score: either records or columns."""

    records: list[dict[str, Any]] | None = None
    columns: dict[str, list[Any]] | None = None
    context: Context | None = None


class FeedbackItem(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(max_length=100)]
    correct: bool
    note: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    role: Annotated[str, msgspec.Meta(max_length=40)] = ""


class FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/feedback."""

    items: list[FeedbackItem]


class JsonReader:
    """Reads the JSON bodies of one contract.

    A body is decoded straight into the contract's fields. One that does not fit is read again value by value:
    that is slower, and can say which row, field and bound is wrong.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._categories = [
            (position, item.name, contract.codes[item.name])
            for position, item in enumerate(contract.inputs)
            if item.kind == "category"
        ]
        # msgspec gives no field a name with one of these.
        self._fast = not any(ESCAPED & set(item.name) for item in contract.inputs)
        if not self._fast:
            return
        fields: list[Any] = []
        columns: list[Any] = []
        names: dict[str, str] = {}
        for position, item in enumerate(contract.inputs):
            field, kind = f"f{position}", (str if item.kind == "category" else float)
            names[field] = item.name
            derived = item.base != item.name
            fields.append((field, kind | None, None) if derived else (field, kind | None))
            columns.append(
                (field, list[kind | None] | UnsetType, UNSET) if derived else (field, list[kind | None])  # type: ignore[valid-type]
            )
        names |= {name[1:]: name for name in CONTEXT}
        fields += [(name[1:], Any, None) for name in CONTEXT]
        options: dict[str, Any] = {
            "forbid_unknown_fields": True,
            "gc": False,
            "rename": names,
            "kw_only": True,
        }
        record = msgspec.defstruct("Record", fields, **options)
        block = msgspec.defstruct("Columns", columns, **options)
        records = msgspec.defstruct("Records", [("records", list[record])], forbid_unknown_fields=True)  # type: ignore[valid-type]
        self._records: msgspec.json.Decoder[Any] = msgspec.json.Decoder(records)
        self._columns: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct(
                "ByColumns",
                [("columns", block), ("context", Context | None, None)],
                forbid_unknown_fields=True,
            )
        )

    def read(self, body: bytes) -> Rows:
        """The rows of a body as in ScoreBody.

        Raises:
            Refused: 400 no JSON; 413 too many rows; 422 the contract refuses it: row, field and bound are
                named.
        """
        if not self._fast:
            return self.explained(body)
        columnar = body.startswith(b'{"columns"')
        try:
            return self._by_columns(body) if columnar else self._by_records(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
            return self.explained(body)

    def explained(self, body: bytes) -> Rows:
        """The same, value by value."""
        request = decode(body, ScoreBody)
        if (request.records is None) == (request.columns is None):
            raise Refused(422, "the body must have exactly one of records and columns")
        if request.records is not None:
            if request.context is not None:
                raise Refused(
                    422, "context goes with columns; a record has its _time, _run and _row in itself"
                )
            limit(len(request.records), "records")
            columns, given = _columns(request.records, self._contract)
        else:
            assert request.columns is not None
            columns = request.columns
            limit(max(map(len, columns.values()), default=0), "columns")
            given = _given(request.context)
        return of_columns(columns, given, self._contract)._replace(columnar=request.columns is not None)

    def _by_records(self, body: bytes) -> Rows:
        tuples = list(map(msgspec.structs.astuple, self._records.decode(body).records))
        limit(len(tuples), "records")
        wide: Any = [row[:-3] for row in tuples]
        texts: dict[str, Sequence[str | None]] = {}
        if self._categories:
            wide = [list(row) for row in wide]
            for position, name, codes in self._categories:
                texts[name] = [row[position] for row in wide]
                for row in wide:
                    row[position] = codes.get(row[position], UNKNOWN_CATEGORY)
        context: dict[str, list[Any]] = {}
        if [row for row in tuples if row[-3:] != _NO_CONTEXT]:
            given = zip(*(row[-3:] for row in tuples), strict=True)
            context = _checked(dict(zip(CONTEXT, given, strict=True)), len(tuples))
        return Rows(len(tuples), wide, texts, context)

    def _by_columns(self, body: bytes) -> Rows:
        request = self._columns.decode(body)
        given = msgspec.structs.astuple(request.columns)
        columns = {
            item.name: values
            for item, values in zip(self._contract.inputs, given, strict=False)
            if values is not UNSET
        }
        limit(max(map(len, columns.values()), default=0), "columns")
        return of_columns(columns, _given(request.context), self._contract)._replace(columnar=True)


_NO_CONTEXT = (None, None, None)


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
    return Rows(len(wide), wide, texts, _checked(context, len(wide)))


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as the type it must have.

    Raises:
        Refused: 400 if it is no JSON, 422 if it is another type; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, f"the body does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is no JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error


def by_records(site: bytes) -> Callable[[Answer], bytes]:
    """Writes answers with one object a row. `site` is the site's name, escaped as in JSON."""
    marks = (b"false", b"true")
    known: Head | None = None
    start = b""

    def write(answer: Answer) -> bytes:
        nonlocal known, start
        if answer.head is not known:
            known, start = answer.head, _encode(_said(answer.head))[:-1]
        number, scores, predicted, outside, _ = answer
        if len(scores) == 1:
            return b'%b,"results":[{"id":"%b/%d","score":%r,"predicted":%b,"outside":%b}]}' % (
                start, site, number, scores[0], marks[predicted[0]], marks[outside[0]]
            )  # fmt: skip
        results = [
            b'{"id":"%b/%d","score":%r,"predicted":%b,"outside":%b}'
            % (site, number + row, score, marks[label], marks[beyond])
            for row, (score, label, beyond) in enumerate(zip(scores, predicted, outside, strict=True))
        ]
        return b'%b,"results":[%b]}' % (start, b",".join(results))

    return write


def by_columns(site: str, answer: Answer) -> bytes:
    """An answer with one list for each thing that is said of a row."""
    body = {
        "first": f"{site}/{answer.first}",
        "scores": answer.scores,
        "predicted": answer.predicted,
        "outside": answer.outside,
    }
    return _encode(_said(answer.head) | body)


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
        if owner != site or not number.isascii() or not number.isdecimal() or len(number) > 18:
            raise Refused(404, f"there is no score {item.id!r} on this site; an id is {site}/NUMBER")
        result.append(Feedback(int(number), item.correct, item.note, role or item.role, now))
    return result


def time_text(microseconds: int) -> str:
    """µs since 1970, UTC, in ISO 8601."""
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat() + "Z"


def limit(rows: int, what: str) -> None:
    """Refuse a request without rows, or with too many."""
    if not rows:
        raise Refused(422, f"{what} holds no row")
    if rows > MAX_ROWS:
        raise Refused(413, f"{rows} rows are too many for one request, at most {MAX_ROWS} are taken")


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
    found.update(msgspec.msgpack.encode(sorted(rows.context.items())))
    return found.digest()


def _said(head: Head) -> dict[str, Any]:
    said: dict[str, Any] = {
        "release": head.release,
        "scored_at": time_text(head.scored_at),
        "threshold": head.threshold,
    }
    return said | {"repeated": True} if head.repeated else said


def _checked(context: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    try:
        return contexts.checked(context, rows)
    except ContractError as error:
        raise Refused(422, str(error)) from error


def _given(context: Context | None) -> dict[str, list[Any]]:
    if context is None:
        return {}
    return {name: values for name in CONTEXT if (values := getattr(context, name[1:])) is not None}


def _columns(
    records: list[dict[str, Any]], contract: Contract
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Records as columns of inputs and of context. A derived input may be absent from some records."""
    names = dict.fromkeys(chain.from_iterable(records))
    known = {item.name for item in contract.inputs}
    # Before any column is made: as many made-up names as records would need the square of memory.
    if unknown := next((name for name in names if name not in known and name not in CONTEXT), None):
        raise Refused(422, f"field {unknown[:200]!r} is not an input of this model")
    inputs = {name: [record.get(name) for record in records] for name in names if name not in CONTEXT}
    given = {name: [record.get(name) for record in records] for name in CONTEXT if name in names}
    if any(len(record) != len(names) for record in records):
        for name in (item.name for item in contract.inputs if item.base == item.name and item.name in names):
            for row, record in enumerate(records):
                if name not in record:
                    raise Refused(
                        422, f"row {row}: field {name!r} is missing (null means it was not measured)"
                    )
    return inputs, given
