"""MLflow: a Python model, saved and then served by MLflow's command; `mlflow_app.py PORT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np


class Bench(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        from session import Scorer

        self.scorer = Scorer()

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        return self.scorer(np.asarray(model_input, np.float32))


if __name__ == "__main__":
    mlflow.pyfunc.save_model("model", python_model=Bench(), pip_requirements=[])
    command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--model-uri", "model"]
    command += ["--host", "127.0.0.1", "--port", sys.argv[1], "--workers", "1", "--env-manager", "local"]
    os.execv(command[0], command)  # noqa: S606 - that is the point
