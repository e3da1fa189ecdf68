"""BentoML: a service with one worker."""

from __future__ import annotations

import bentoml
import numpy as np


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Bench:
    def __init__(self) -> None:
        from session import Scorer

        self.scorer = Scorer()

    @bentoml.api
    async def score(self, rows: list[list[float]]) -> list[float]:
        return self.scorer(np.array(rows, np.float32)).tolist()
