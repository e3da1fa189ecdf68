"""The rows of a JSON body: straight into the contract's fields, or value by value when something is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from edge_ai_assets.scoring.bodies.json_faults import explained_fault
from edge_ai_assets.scoring.bodies.json_numbers import NumbersReader
from edge_ai_assets.scoring.bodies.json_size import bounded
from edge_ai_assets.scoring.context import CONTEXT
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY, Contract, kind_of
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import (
    MAX_FEEDBACK,
    MAX_ROWS,
    FeedbackBody,
    FeedbackItem,
    Rows,
    checked,
    limit,
    of_columns,
)

T = TypeVar("T")
ESCAPED = frozenset('"\\') | frozenset(map(chr, range(32)))
"""Characters that JSON escapes."""


class Context(msgspec.Struct, forbid_unknown_fields=True, rename="_{}".format):
    """What a row belongs to, one value a row; no input of the model."""

    time: list[Any] | None = None
    run: list[Any] | None = None
    row: list[Any] | None = None
    asset: list[Any] | None = None


class _OfScalars(msgspec.Struct, forbid_unknown_fields=True, rename="_{}".format):
    """The same of the kinds that are right."""

    time: list[str | None] | None = None
    run: list[str | None] | None = None
    row: list[int | None] | None = None
    asset: list[str | None] | None = None


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /v1/score: either records or columns."""

    records: list[dict[str, Any]] | None = None
    columns: dict[str, Any] | None = None
    context: Context | None = None


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
        self._numbers = None
        if not self._fast:
            return
        if not self._categories:
            self._numbers = NumbersReader([item.name for item in contract.inputs])
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
        # Other kinds are refused, by the explained way: whatever they hold is not made twice.
        fields += [(name[1:], (int if name == "_row" else str) | None, None) for name in CONTEXT]
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
                [("columns", block), ("context", _OfScalars | None, None)],
                forbid_unknown_fields=True,
            )
        )

    def read(self, body: bytes) -> Rows:
        """The rows of a body as in ScoreBody.

        Raises:
            Refused: 400 no JSON; 413 too many rows, or values; 422 the contract refuses it: row, field and
                bound are named.
        """
        columnar = body.startswith(b'{"columns"')
        if columnar and self._numbers is not None and (numbers := self._numbers.read(body)) is not None:
            limit(max(map(len, numbers.values()), default=0), "columns")
            return of_columns(numbers, {}, self._contract)._replace(columnar=True)
        bounded(body, MAX_ROWS, len(self._contract.inputs) + len(CONTEXT))
        if not self._fast:
            return self.explained(body)
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
                    422, "context goes with columns; a record has its _time, _run, _row and _asset in itself"
                )
            limit(len(request.records), "records")
            columns, given = _columns(request.records, self._contract)
        else:
            assert request.columns is not None
            columns = request.columns
            for name, values in columns.items():
                if not isinstance(values, list):
                    must = "must be a list with a value for each row"
                    raise Refused(422, f"field {name[:200]!r} {must}, it is {kind_of(values)}")
            limit(max(map(len, columns.values()), default=0), "columns")
            given = _given(request.context)
        return of_columns(columns, given, self._contract)._replace(columnar=request.columns is not None)

    def _by_records(self, body: bytes) -> Rows:
        tuples = list(map(msgspec.structs.astuple, self._records.decode(body).records))
        limit(len(tuples), "records")
        wide: Any = [row[:-4] for row in tuples]
        texts: dict[str, Sequence[str | None]] = {}
        if self._categories:
            wide = [list(row) for row in wide]
            for position, name, codes in self._categories:
                texts[name] = [row[position] for row in wide]
                for row in wide:
                    row[position] = codes.get(row[position], UNKNOWN_CATEGORY)
        context: dict[str, list[Any]] = {}
        if [row for row in tuples if row[-4:] != _NO_CONTEXT]:
            given = dict(zip(CONTEXT, zip(*(row[-4:] for row in tuples), strict=True), strict=True))
            if given["_asset"].count(None) == len(tuples):
                del given["_asset"]  # so that a request without them is what it was before there were any
            context = checked(given, len(tuples))
        return Rows(len(tuples), wide, texts, context)

    def _by_columns(self, body: bytes) -> Rows:
        request = self._columns.decode(body)
        given = msgspec.structs.astuple(request.columns)
        columns = {
            item.name: values if item.kind == "category" else np.array(values, np.float64)
            for item, values in zip(self._contract.inputs, given, strict=False)
            if values is not UNSET
        }
        limit(max(map(len, columns.values()), default=0), "columns")
        return of_columns(columns, _given(request.context), self._contract)._replace(columnar=True)


def feedback(body: bytes) -> list[FeedbackItem]:
    """What users said about scores; a body as in FeedbackBody.

    Raises:
        Refused: as `JsonReader.read`.
    """
    bounded(body, MAX_FEEDBACK, len(FeedbackItem.__struct_fields__))
    return decode(body, FeedbackBody).items


_NO_CONTEXT = (None,) * len(CONTEXT)


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as the type it must have.

    Raises:
        Refused: 400 if it is no JSON, 422 if it is another type; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused(422, f"the body does not fit: {explained_fault(body, str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is no JSON in UTF-8: {explained_fault(body, str(error))}") from error
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error


def _given(context: Context | _OfScalars | None) -> dict[str, list[Any]]:
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
