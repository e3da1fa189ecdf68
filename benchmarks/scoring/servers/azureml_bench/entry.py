"""The entry script of Azure Machine Learning's inference server."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from session import Scorer


def init() -> None:
    global scorer
    scorer = Scorer()


def run(data: str) -> dict[str, Any]:
    return {"scores": scorer(np.array(orjson.loads(data)["rows"], np.float32)).tolist()}
