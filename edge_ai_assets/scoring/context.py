"""What a row belongs to, beside its inputs: when, in which run, which row of it, of which plant asset. No
input of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from edge_ai_assets.scoring.contract import ContractError

CONTEXT = ("_time", "_run", "_row", "_asset")
MAX_RUN = MAX_ASSET = 200
"""Characters of their names."""


def checked(context: Mapping[str, Sequence[Any]], rows: int) -> dict[str, list[Any]]:
    """Context columns as the outbox keeps them: times naive UTC in one spelling of ISO 8601.

    Args:
        context: n values for some of CONTEXT; None is not known.
        rows: n.

    Raises:
        ContractError: a value is not what it must be, or a column has another length; the message names row,
            field and bound.
    """
    for name, values in context.items():
        if len(values) != rows:
            raise ContractError(f"context {name!r} has {len(values)} values for {rows} rows")
    return {name: list(_CHECKS[name](values)) for name, values in context.items()}


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


def _names(field: str, most: int, values: Sequence[Any]) -> Sequence[Any]:
    for row, value in enumerate(values):
        if value is not None and not (isinstance(value, str) and len(value) <= most):
            bound = f"must be text of at most {most} characters"
            raise ContractError(f"row {row}: {field!r} {bound}, it is {_shown(value)}")
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


_CHECKS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "_time": _times,
    "_run": partial(_names, "_run", MAX_RUN),
    "_row": _rows,
    "_asset": partial(_names, "_asset", MAX_ASSET),
}
