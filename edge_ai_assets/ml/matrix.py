"""From a table of inputs to the matrix a model takes: the one way for training, export and evaluation."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd

from edge_ai_assets.scoring.contract import Contract


def matrix(frame: pd.DataFrame, contract: Contract) -> np.ndarray:
    """The contract's inputs of every row, encoded as the scoring service does; float32, shape (rows, inputs).

    Values that lie outside their plausible range are taken to its edge: readings were checked when they came
    in, so the only way out is the egress policy, which rounds feedback to its digits.

    Raises:
        ContractError: a base feature has no column, or a value is of the wrong kind or infinite.
    """
    columns: dict[str, object] = {}
    for item in contract.inputs:
        if item.name not in frame:
            continue
        if item.kind == "category":
            values = frame[item.name].astype(object)
            columns[item.name] = values.where(values.notna(), None).tolist()
        else:
            numbers = frame[item.name].to_numpy(np.float64, na_value=np.nan, copy=True)
            finite = np.isfinite(numbers)
            numbers[finite] = np.clip(numbers[finite], _or(item.low, -np.inf), _or(item.high, np.inf))
            columns[item.name] = numbers
    return contract.encode(columns)  # type: ignore[arg-type]


def with_trained_ranges(contract: Contract, features: np.ndarray) -> Contract:
    """The contract with each number's range in a training matrix; None where it is missing everywhere."""
    inputs = []
    for item, column in zip(contract.inputs, features.T, strict=True):
        seen = column[~np.isnan(column)]
        if item.kind == "number" and len(seen):
            item = msgspec.structs.replace(
                item, trained_low=float(seen.min()), trained_high=float(seen.max())
            )
        inputs.append(item)
    return msgspec.structs.replace(contract, inputs=tuple(inputs))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
