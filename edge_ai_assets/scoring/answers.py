"""From scores to the body of the answer, in JSON. Tables and tensors are written in `bodies`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

EPOCH = datetime(1970, 1, 1)

_encode = msgspec.json.Encoder().encode


class Head(NamedTuple):
    """What is the same for all rows of an answer, and for all requests that were scored together."""

    release: str
    scored_at: int
    """µs since 1970, UTC."""
    threshold: float | None
    """None if another release than those that are served scored it: only its own contract knows."""
    repeated: bool = False
    """The request was answered before; this is what was scored then."""


class Answer(NamedTuple):
    """The scores of a request; the three sequences have one length, at least 1.

    They are lists, or arrays if the request was scored alone: of a large one no Python object is made.
    """

    first: int
    scores: list[float] | np.ndarray
    predicted: list[bool] | np.ndarray
    outside: list[bool] | np.ndarray
    head: Head

    def listed(self) -> Answer:
        """The same in lists."""
        if isinstance(self.scores, list):
            return self
        predicted, outside = np.asarray(self.predicted).tolist(), np.asarray(self.outside).tolist()
        return Answer(self.first, self.scores.tolist(), predicted, outside, self.head)


def by_records(site: bytes) -> Callable[[Answer], bytes]:
    """Writes answers with one object a row; to be called from one thread: it remembers the last head.

    Args:
        site: the site's name, escaped as in JSON.
    """
    marks = (b"false", b"true")
    known: Head | None = None
    start = b""

    def write(answer: Answer) -> bytes:
        nonlocal known, start
        if answer.head is not known:
            known, start = answer.head, _encode(_said(answer.head))[:-1]
        number, scores, predicted, outside, _ = answer.listed()
        if len(scores) == 1:
            return b'%b,"results":[{"id":"%b/%d","score":%r,"predicted":%b,"outside":%b}]}' % (
                start, site, number, scores[0], marks[predicted[0]], marks[outside[0]]
            )  # fmt: skip
        results = [
            b'{"id":"%b/%d","score":%r,"predicted":%b,"outside":%b}'
            % (site, number + row, score, marks[label], marks[beyond])
            for row, (score, label, beyond) in enumerate(zip(scores, predicted, outside, strict=True))
        ]
        return b'%b,"results":[%b]}' % (start, b",".join(results))

    return write


def by_columns(site: str, answer: Answer) -> bytes:
    """An answer with one list for each thing that is said of a row."""
    body = {
        "first": f"{site}/{answer.first}",
        "scores": answer.scores,
        "predicted": answer.predicted,
        "outside": answer.outside,
    }
    return orjson.dumps(_said(answer.head) | body, option=orjson.OPT_SERIALIZE_NUMPY)


def time_text(microseconds: int) -> str:
    """µs since 1970, UTC, in ISO 8601."""
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat() + "Z"


def _said(head: Head) -> dict[str, Any]:
    said: dict[str, Any] = {
        "release": head.release,
        "scored_at": time_text(head.scored_at),
        "threshold": head.threshold,
    }
    return said | {"repeated": True} if head.repeated else said
