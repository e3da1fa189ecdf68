"""The model as every peer uses it: a plain onnxruntime session on one thread, as ours has it."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime


class Scorer:
    """Scores rows; made once in each process."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = os.environ["BENCH_MODEL"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Scores, float32, shape (n,), of rows, float32, shape (n, inputs)."""
        scores: np.ndarray = self._session.run(["scores"], {"features": rows})[0]
        return scores.reshape(-1)
