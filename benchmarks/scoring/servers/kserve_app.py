"""KServe: a Model with one worker, by V1, 1.4 times as fast here as V2; no gRPC; `kserve_app.py PORT`."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
from kserve import Model, ModelServer
from session import Scorer


class Bench(Model):
    def __init__(self) -> None:
        super().__init__("bench")
        self.load()

    def load(self) -> bool:
        self.scorer = Scorer()
        self.ready = True
        return True

    async def predict(
        self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None
    ) -> Any:
        return {"predictions": self.scorer(np.array(payload["instances"], np.float32)).tolist()}


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(sys.argv[1]), workers=1, enable_grpc=False, enable_latency_logging=False
    )
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    server.start([Bench()])
