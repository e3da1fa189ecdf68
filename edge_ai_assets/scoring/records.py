"""What the outbox keeps of each row: its inputs and what it belongs to, as JSON.

The contract has checked the inputs, the context is checked here; the format is the outbox's RECORD_SCHEMA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from edge_ai_assets.scoring.contract import ContractError

CONTEXT = ("_time", "_run", "_row")
MAX_RUN = 200

_encoder = msgspec.json.Encoder()


def encode(columns: Mapping[str, Sequence[Any]], context: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """One record a row.

    Args:
        columns: inputs by name, n values each, already accepted by the contract; at least one.
        context: n values for some of CONTEXT.

    Returns:
        JSON, shape (n,); missing values are null, times are naive UTC in ISO 8601.

    Raises:
        ContractError: a context value is not what it must be; the message names row, field and bound.
    """
    rows = len(next(iter(columns.values())))
    kept = {name: _CHECKS[name](values) for name, values in context.items()}
    inputs = zip(*columns.values(), strict=True)
    contexts = zip(*kept.values(), strict=True) if kept else [()] * rows
    return [
        _encoder.encode(
            {"inputs": dict(zip(columns, row, strict=True)), "context": dict(zip(kept, of, strict=True))}
        )
        for row, of in zip(inputs, contexts, strict=True)
    ]


def _times(values: Sequence[Any]) -> list[str | None]:
    """ISO 8601 times as naive UTC, in one spelling."""
    result: list[str | None] = []
    for row, value in enumerate(values):
        if value is None:
            result.append(None)
            continue
        try:
            time = datetime.fromisoformat(value)
            if time.tzinfo is not None:
                time = time.astimezone(UTC).replace(tzinfo=None)
        except (TypeError, ValueError, OverflowError):
            example = "2026-01-31T13:45:00"
            message = f"row {row}: '_time' must be an ISO 8601 time such as {example}, it is {_shown(value)}"
            raise ContractError(message) from None
        result.append(time.isoformat())
    return result


def _runs(values: Sequence[Any]) -> Sequence[Any]:
    for row, value in enumerate(values):
        if value is not None and not (isinstance(value, str) and len(value) <= MAX_RUN):
            bound = f"must be text of at most {MAX_RUN} characters"
            raise ContractError(f"row {row}: '_run' {bound}, it is {_shown(value)}")
    return values


def _rows(values: Sequence[Any]) -> Sequence[Any]:
    for row, value in enumerate(values):
        if value is not None and (type(value) is not int or not 0 <= value < 2**63):
            bound = "must be a whole number from 0 to 2^63 - 1"
            raise ContractError(f"row {row}: '_row' {bound}, it is {_shown(value)}")
    return values


def _shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a whole number beyond 64 bits"  # the text of a huge one is an error of its own
    return repr(value[:60] if isinstance(value, str) else value)


_CHECKS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {"_time": _times, "_run": _runs, "_row": _rows}
