"""LitServe: a LitAPI with one worker; `litserve_app.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        from session import Scorer

        self.scorer = Scorer()

    # LitServe makes FastAPI's body of the annotation of `request`, so it has none.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return np.array(request["rows"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.scorer(x)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"scores": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
