"""FastAPI by hand, as its documentation teaches: a model for the body, a return type, uvicorn with uvloop.

Both ways of declaring the function, since each wins one load: `async def` has no way to a thread and back,
which is long beside one row; with `def` one request is parsed while another is scored.
"""

from __future__ import annotations

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from session import Scorer

WIDTH = 8
scorer = Scorer()
app = FastAPI()


class Rows(BaseModel):
    rows: list[float]
    """Row after row: pydantic checks one list much faster than many."""


class Scores(BaseModel):
    scores: list[float]


@app.post("/async")
async def score_async(body: Rows) -> Scores:
    return score(body)


@app.post("/threads")
def score_threads(body: Rows) -> Scores:
    return score(body)


def score(body: Rows) -> Scores:
    return Scores(scores=scorer(np.array(body.rows, np.float32).reshape(-1, WIDTH)).tolist())
