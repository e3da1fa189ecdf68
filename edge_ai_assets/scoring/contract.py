"""The contract of a release: what the model takes, what its score means, what its training data looked like.

It travels beside the ONNX file and is all that a site knows of the training. Only msgspec and numpy are
imported, so the scoring service can use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import msgspec
import numpy as np

FORMAT = 1
UNKNOWN_CATEGORY = -1.0
FLOAT32 = float(np.finfo(np.float32).max)
_NO_ROWS = np.empty(0, np.intp)


class ContractError(ValueError):
    """A record that the contract refuses; the message names row, field, the value's kind and the bound."""


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model input. Position in `Contract.inputs` is its column in the matrix the model takes."""

    name: str
    kind: Literal["number", "category"]
    unit: str
    base: str
    """The feature it is, or is derived from."""
    low: float | None = None
    high: float | None = None
    """Plausible range: a value outside is refused."""
    trained_low: float | None = None
    trained_high: float | None = None
    """Range in the training data: a value outside is scored and marked."""
    categories: tuple[str, ...] = ()
    kept: bool = True
    """Whether the site keeps its values beside the score; if not, the model sees them and nobody after it."""


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Distribution of one feature in the training data, over fixed bins."""

    name: str
    edges: tuple[float, ...]
    """Inner bin edges, rising, shape (bins - 1,); the outer bins are open."""
    counts: tuple[int, ...]
    """Training rows per bin, shape (bins,)."""
    threshold: float
    """Population stability index from which on the feature counts as drifted."""


class _Format(msgspec.Struct):
    format: int = FORMAT


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """See the module."""

    usecase: str
    inputs: tuple[Input, ...]
    threshold: float
    """A score at or above it is predicted positive."""
    label: str
    references: tuple[Reference, ...] = ()
    format: int = FORMAT

    def encode(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Columns of values, by input name, as the matrix the model takes, in C order: all that follows."""
        return np.ascontiguousarray(self.narrowed(self.widened(columns))[0])

    def widened(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Columns of values, by input name, as numbers.

        Args:
            columns: for each input a sequence of n values; a missing number is None or NaN, a missing
                category None. A derived input may be left out, and is then missing; a base feature may not.

        Returns:
            float64, shape (n, len(inputs)); missing numbers are NaN, unknown categories -1.

        Raises:
            ContractError: an unknown field, a field left out, columns of different lengths, or a value of
                the wrong kind.
        """
        if unknown := sorted(columns.keys() - self.codes.keys()):
            raise ContractError(f"field {unknown[0][:200]!r} is not an input of this model")
        for item in self.inputs:
            if item.base == item.name and item.name not in columns:
                raise ContractError(f"field {item.name!r} is missing")
        lengths = {item.name: len(columns[item.name]) for item in self.inputs if item.name in columns}
        if len(set(lengths.values())) != 1:
            raise ContractError(_odd(lengths))
        rows = next(iter(lengths.values()))
        wide = np.empty((len(self.inputs), rows))
        for position, item in enumerate(self.inputs):
            if item.name not in columns:
                wide[position] = np.nan
            elif item.kind == "category":
                wide[position] = _categories(item, columns[item.name], self.codes[item.name])
            else:
                wide[position] = _numbers(item, columns[item.name])
        return wide.T

    def narrowed(self, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `widened` made, within its plausible ranges, as the matrix the model takes.

        All rows and inputs are asked one question at once, and the rows that are not usual all others: for
        one row, a numpy call costs more than the work it does.

        Returns:
            matrix: float32, shape (n, len(inputs)), in the order of `wide`: checks of columns that came as
                columns run along them.
            odd: rows in which a value is missing, no known category or outside the range that was trained on;
                rising, intp, shape (m,).

        Raises:
            ContractError: a value is infinite, one that float32 cannot hold, or outside its plausible range;
                the first such row is named, by the first such input.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            matrix = np.asarray(wide, np.float32)
        # Bounds in float32, too: 0.1 must be within 0.1, whether it came as float32 or float64.
        low, high = self._usual
        usual = (matrix >= low) & (matrix <= high)  # NaN is neither
        if usual.all():
            return matrix, _NO_ROWS
        odd = np.flatnonzero(~usual.all(axis=1))
        low, high = self._plausible
        wrong = (matrix[odd] < low) | (matrix[odd] > high)
        if wrong.any():
            first = int(wrong.any(axis=1).argmax())
            row, position = int(odd[first]), int(wrong[first].argmax())
            raise ContractError(_refusal(self.inputs[position], row, float(wide[row, position])))
        return matrix, odd

    def beyond(self, matrix: np.ndarray) -> np.ndarray:
        """Which values lie outside the range that was trained on; bool, shape (n, len(inputs))."""
        low, high = self._trained
        beyond: np.ndarray = (matrix < low) | (matrix > high)
        return beyond

    @cached_property
    def codes(self) -> dict[str, dict[str, float]]:
        """For each input, the code of each of its categories; of a number, none."""
        return {
            item.name: {name: float(code) for code, name in enumerate(item.categories)}
            for item in self.inputs
        }

    @cached_property
    def _plausible(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of each input, finite; float32 as the matrix is, shape (inputs,)."""
        low = [-np.inf if item.low is None or item.kind == "category" else item.low for item in self.inputs]
        high = [np.inf if item.high is None or item.kind == "category" else item.high for item in self.inputs]
        bounds = np.maximum(low, -FLOAT32), np.minimum(high, FLOAT32)
        return bounds[0].astype(np.float32), bounds[1].astype(np.float32)

    @cached_property
    def _usual(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of what there is nothing to say about: within both others, and a known category."""
        known = [0.0 if item.kind == "category" else -FLOAT32 for item in self.inputs]
        low = np.maximum(self._plausible[0], self._trained[0])
        return np.maximum(low, np.array(known, np.float32)), np.minimum(self._plausible[1], self._trained[1])

    @cached_property
    def _trained(self) -> tuple[np.ndarray, np.ndarray]:
        """Trained bounds of each input, float32 as the matrix is, shape (inputs,)."""
        low = [-np.inf if item.trained_low is None else item.trained_low for item in self.inputs]
        high = [np.inf if item.trained_high is None else item.trained_high for item in self.inputs]
        return np.array(low, np.float32), np.array(high, np.float32)


def _refusal(item: Input, row: int, value: float) -> str:
    low = -np.inf if item.low is None else item.low
    high = np.inf if item.high is None else item.high
    if low <= value <= high:
        return f"row {row}: {item.name!r} is {value:g}, it must be finite and within float32"
    unit = f" {item.unit}" if item.unit else ""
    if item.low is None:
        bound = f"at most {high:g}"
    else:
        bound = f"at least {low:g}" if item.high is None else f"between {low:g} and {high:g}"
    return f"row {row}: {item.name!r} is {value:g}, it must be {bound}{unit}"


def _odd(lengths: Mapping[str, int]) -> str:
    """Which column has another length than most."""
    ((usual, _),) = Counter(lengths.values()).most_common(1)
    name, odd = next((name, length) for name, length in lengths.items() if length != usual)
    other = next(name for name, length in lengths.items() if length == usual)
    return f"columns must have one length: field {name!r} has {odd} values, field {other!r} has {usual}"


def _categories(item: Input, values: Sequence[Any], codes: Mapping[str, float]) -> list[float]:
    """Codes of texts; what is missing or not known is UNKNOWN_CATEGORY."""
    if not set(map(type, values)) <= {str, NoneType}:
        for row, value in enumerate(values):
            if value is not None and not isinstance(value, str):
                raise ContractError(f"row {row}: {item.name!r} must be text, it is {kind_of(value)}")
    return [codes.get(value, UNKNOWN_CATEGORY) for value in values]


def _numbers(item: Input, values: Sequence[Any]) -> np.ndarray:
    """Values as numbers, shape (n,); a missing one is NaN."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return values
    if not set(map(type, values)) <= {
        float,
        int,
        NoneType,
    }:  # exact types only: much faster than asking each value
        for row, value in enumerate(values):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ContractError(f"row {row}: {item.name!r} must be a number, it is {kind_of(value)}")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        row = next(
            row for row, value in enumerate(values) if isinstance(value, int) and abs(value) >= 2**1023
        )
        raise ContractError(f"row {row}: {item.name!r} is a whole number too large to be one") from None


def kind_of(value: Any) -> str:
    """What a value is, in a message."""
    kinds = {
        NoneType: "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        dict: "an object",
        list: "a list",
    }
    return kinds.get(type(value), type(value).__name__)


def read(path: Path) -> Contract:
    """Read a contract file; `msgspec.ValidationError` names the field of a malformed one."""
    data = path.read_bytes()
    # The format first: what a newer one added would otherwise only be called an unknown field.
    if (found := msgspec.json.decode(data, type=_Format).format) != FORMAT:
        raise ContractError(f"{path}: contract format {found}, this version reads {FORMAT}")
    return msgspec.json.decode(data, type=Contract)


def write(contract: Contract, path: Path) -> None:
    """Write a contract file: the same contract gives the same bytes.

    `kept` is written only where it is false: a contract that keeps everything is what it was before there was
    a choice, and is read by those who know of none.
    """
    written = msgspec.to_builtins(contract)
    for item in written["inputs"]:
        if item["kept"]:
            del item["kept"]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")
