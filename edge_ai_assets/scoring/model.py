"""A release's model: an ONNX file and its contract, as the service calls it.

Only numbers in, numbers out: reading requests is `requests`' work.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from edge_ai_assets.scoring import contract

MODEL = "model.onnx"
CONTRACT = "contract.json"
INPUT = "features"
OUTPUT = "scores"
ROUNDING = 1e-4
"""More than float32 takes a sum of 10,000 trees' votes away from 1."""


class ModelError(ValueError):
    """A release that cannot be used, or a row that its model cannot score; the message says why."""


class Model:
    """An ONNX session and the contract beside it, tried out before anybody relies on it.

    Args:
        folder: a release, with `model.onnx` and `contract.json`.

    Raises:
        ModelError: a file is missing or broken, the two do not belong together, or the self-test fails.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.contract = contract.read(folder / CONTRACT)
        except (OSError, msgspec.MsgspecError, contract.ContractError, UnicodeDecodeError) as error:
            raise ModelError(f"release {folder}: its contract cannot be read: {error}") from error
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread and no spinning: with more, a single row takes longer, and idle cores are burnt waiting.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = folder / MODEL
        self.installed = (folder / CONTRACT).stat().st_ctime
        """When the release came to this machine, seconds since 1970: no copying keeps a ctime."""
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each status, with no common base
            raise ModelError(f"release {folder}: {MODEL} cannot be loaded: {_first_line(error)}") from error
        names = (
            {item.name for item in self._session.get_inputs()},
            {item.name for item in self._session.get_outputs()},
        )
        if names[0] != {INPUT} or OUTPUT not in names[1]:
            raise ModelError(
                f"release {folder}: {MODEL} must take {INPUT!r} and give {OUTPUT!r}, "
                f"it takes {sorted(names[0])} and gives {sorted(names[1])}"
            )
        self._threshold = _least_float32(self.contract.threshold)
        self._self_test(folder)

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Scores of rows that `Contract.encode` made.

        Args:
            matrix: float32, shape (n, inputs), n at least 1.

        Returns:
            float32, shape (n,), each in [0, 1].

        Raises:
            ModelError: the model gives a row no such score; one that rounding took ROUNDING out of it, as a
                forest's sum of votes may be, is taken for the end of it.
        """
        given = np.ascontiguousarray(matrix, np.float32)
        scores = np.asarray(self._session.run([OUTPUT], {INPUT: given})[0], np.float32).reshape(-1)
        if scores.shape != (len(matrix),):
            raise ModelError(f"the model gave {scores.size} scores for {len(matrix)} rows")
        if not (scores.min() >= 0 and scores.max() <= 1):  # NaN is neither
            right = (scores >= -ROUNDING) & (scores <= 1 + ROUNDING)
            if not right.all():
                row = int(np.argmin(right))
                raise ModelError(
                    f"row {row}: the model's score is {scores[row]:g}, which is not between 0 and 1"
                )
            scores = scores.clip(0, 1)
        return scores

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Which scores, shape (n,), reach the contract's threshold; bool, shape (n,).

        Compared in float64, as anyone will who compares the score and the threshold of an answer.
        """
        return scores >= self._threshold

    def _self_test(self, folder: Path) -> None:
        """Score trained bounds, their middle and a row with everything missing; twice, together and alone."""
        low = np.array([_bound(item.trained_low, item.low, 0.0) for item in self.contract.inputs], np.float32)
        high = np.array(
            [_bound(item.trained_high, item.high, 1.0) for item in self.contract.inputs], np.float32
        )
        category = np.array([item.kind == "category" for item in self.contract.inputs])
        codes = np.array([max(len(item.categories) - 1, 0) for item in self.contract.inputs], np.float32)
        low, high = np.where(category, 0, low), np.where(category, codes, high)
        missing = np.where(category, contract.UNKNOWN_CATEGORY, np.nan)
        middle = np.where(category, low, low / 2 + high / 2)
        matrix = np.stack([low, middle, high, missing]).astype(np.float32)
        try:
            scores = self.score(matrix)
            alone = np.concatenate([self.score(row[np.newaxis]) for row in matrix])
            again = self.score(matrix)
        except Exception as error:  # as above: whatever onnxruntime raises, the release is not used
            raise ModelError(f"release {folder}: the self-test failed: {_first_line(error)}") from error
        if not np.array_equal(scores, again) or not np.allclose(scores, alone, atol=1e-6):
            raise ModelError(
                f"release {folder}: the self-test failed: the same rows were given different scores"
            )


def _least_float32(value: float) -> np.float32:
    """The least float32 that is not below a number: those at or above the one are at or above the other."""
    nearest = np.float32(value)
    return nearest if float(nearest) >= value else np.nextafter(nearest, np.float32(np.inf))


def _bound(*candidates: float | None) -> float:
    return next(value for value in candidates if value is not None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
