"""The rows as each server takes them, and whether it answers with the right scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scoring.candidates import Candidate
from scoring.server import Server, ServerError

BATCH = 1000
ONE_ROW_BODIES, BATCHES = 1000, 20
CHECKED = 100
TOLERANCE = 1e-6
"""Scores are float32 all the way, but an answer's JSON need not hold every digit."""


class Bodies(NamedTuple):
    """Files with one body a line, as wrk posts them."""

    one: Path
    many: Path

    def first(self) -> bytes:
        """The first row's body."""
        with self.one.open("rb") as file:
            return file.readline().strip()


def write(candidate: Candidate, rows: np.ndarray, folder: Path) -> Bodies | None:
    """Write a candidate's bodies for rows, float64, (BATCHES * BATCH, inputs); None if it takes none."""
    if candidate.body is None:
        return None
    singles, batches = rows[:ONE_ROW_BODIES, np.newaxis], rows.reshape(BATCHES, BATCH, -1)
    bodies = Bodies(folder / f"{candidate.name}-1.jsonl", folder / f"{candidate.name}-{BATCH}.jsonl")
    for path, parts in ((bodies.one, singles), (bodies.many, batches)):
        lines = (json.dumps(candidate.body(part), separators=(",", ":")) for part in parts)
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return bodies


def check(server: Server, bodies: Bodies, scores: np.ndarray) -> None:
    """Compare a server's answers with onnxruntime's scores of the same rows, shape (BATCHES * BATCH,).

    Raises:
        ServerError: an answer is not right.
    """
    for path, rows, requests in ((bodies.one, 1, CHECKED), (bodies.many, BATCH, 2)):
        for number, body in enumerate(path.read_bytes().splitlines()[:requests]):
            right = scores[number * rows : (number + 1) * rows]
            given = np.array(server.candidate.scores(server.ask(body)), np.float64).reshape(-1)
            if given.shape != right.shape or not np.allclose(given, right, rtol=0, atol=TOLERANCE):
                raise ServerError(
                    f"{server.candidate.name}: body {number} of {path.name} is answered with {given[:3]}…, "
                    f"shape {given.shape}; onnxruntime's scores are {right[:3]}…, shape {right.shape}"
                )
