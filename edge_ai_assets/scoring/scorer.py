"""Scoring in groups: what comes in one turn of the event loop is one call of the model and one block on disk.

A call of onnxruntime, of numpy and of SQLite costs the same for one row as for fifty, so many small requests
are served as one. A large one is a group of its own, and is scored in a thread beside the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.journal import OUTSIDE, PREDICTED, Block
from edge_ai_assets.returns.outbox.schema import Batch
from edge_ai_assets.scoring.answers import Answer, Head
from edge_ai_assets.scoring.contract import UNKNOWN_CATEGORY
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.requests import Rows, matrix
from edge_ai_assets.scoring.writer import DiskFull

if TYPE_CHECKING:
    from edge_ai_assets.returns.outbox.schema import Receipt
    from edge_ai_assets.scoring.metrics import Metrics
    from edge_ai_assets.scoring.writer import Writer

GROUP_ROWS = 256
"""Rows from which on a group is not made larger: the loop stands still while it is scored."""
THREADS = 2
"""For large requests: while one is in onnxruntime, the next is read and checked."""
WAITING_BYTES = 64 * 1024 * 1024
"""Of large bodies, before further ones are refused; one that finds none waiting is always taken."""


_PREDICTED = np.uint8(PREDICTED)


class Work(NamedTuple):
    """One request to score; `done` is called once, on the event loop, with the answer or the exception."""

    rows: Rows
    done: Callable[[Answer | Exception], None]


class QueueFull(RuntimeError):
    """More is waiting to be scored than is kept in memory; try again soon."""


class Repeated(Exception):
    """The request's key had been used meanwhile; the receipt is of that time, nothing was written now."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt


class Group(NamedTuple):
    """Works that are scored together, and what the model said of all their rows: float64 and bool, shape
    (rows,)."""

    works: Sequence[Work]
    batch: Batch
    scores: np.ndarray
    predicted: np.ndarray
    outside: np.ndarray


class Scorer:
    """Scores with one release and writes before it answers. Its methods are called on one event loop.

    Args:
        model: what scores; release: its digest, kept with each row.
        writer: what writes.
    """

    def __init__(self, model: Model, release: str, writer: Writer, metrics: Metrics) -> None:
        self.model, self.release = model, release
        self._writer, self._metrics = writer, metrics
        self.waiting = 0
        """Bytes of large bodies."""
        self._pending: list[Work] = []
        self._rows = 0
        self._scored: list[Group] = []
        """What is not written yet."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="large-requests")
        kept = [position for position, item in enumerate(model.contract.inputs) if item.kept]
        self._names = tuple(model.contract.inputs[position].name for position in kept)
        self._categories = [
            (position, item.name)
            for position, item in enumerate(model.contract.inputs)
            if item.kind == "category"
        ]
        self._kept = slice(None) if len(kept) == len(model.contract.inputs) else np.array(kept, np.intp)

    def submit(self, work: Work) -> None:
        """Score a small request with the others that come now."""
        if self._rows + work.rows.number > GROUP_ROWS:
            self._flush()
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(work)
        self._rows += work.rows.number

    async def score(
        self, read: Callable[[], Rows], *, key: str | None = None, fingerprint: bytes = b""
    ) -> tuple[Rows, Answer]:
        """Read and score one request alone, in a thread: in one, since each change of threads costs more
        than it takes to write a small request's answer.

        Args:
            read: gives the rows.
            key: idempotency key; fingerprint: digest of the request.

        Raises:
            Repeated: the key is known; nothing was scored.
            ContractError, ModelError: the rows are refused.
            Exception: as `read` and Writer.write; nothing was written.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Answer | Exception] = loop.create_future()

        def done(said: Answer | Exception) -> None:
            if not outcome.done():  # else nobody waits any more; it was written all the same
                outcome.set_result(said)

        def job() -> tuple[Rows, Group]:
            rows = read()
            return rows, self._score([Work(rows, done)], key, fingerprint)

        rows, group = await loop.run_in_executor(self._threads, job)
        if not self._scored:
            loop.call_soon(self._write)
        self._scored.append(group)
        said = await outcome
        if isinstance(said, Exception):
            raise said
        return rows, said

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count a body among those that wait, as it came, in bytes; QueueFull when too much does."""
        if self.waiting and self.waiting + size > WAITING_BYTES:
            raise QueueFull(f"{self.waiting} bytes are waiting to be scored, at most {WAITING_BYTES} may")
        self.waiting += size
        try:
            yield
        finally:
            self.waiting -= size

    def close(self) -> None:
        self._threads.shutdown()

    def _flush(self) -> None:
        works, self._pending, self._rows = self._pending, [], 0
        if works:
            self._run(works)

    def _run(self, works: Sequence[Work]) -> None:
        try:
            group = self._score(works, None, b"")
        except Exception as error:
            if len(works) == 1:
                works[0].done(error)
                return
            # One request that the contract refuses must not fail those that happened to come with it.
            for work in works:
                self._run([work])
        else:
            self._scored.append(group)
            self._write()

    def _score(self, works: Sequence[Work], key: str | None, fingerprint: bytes) -> Group:
        began = time.perf_counter()
        wide = matrix(works[0].rows) if len(works) == 1 else _together(works)
        narrow, odd = self.model.contract.narrowed(wide)
        texts = _joined([work.rows.texts for work in works], works)
        scores = self.model.score(narrow)
        predicted = self.model.predicted(scores)
        flags, outside = predicted * _PREDICTED, np.zeros(len(wide), bool)
        if len(odd):
            beyond = self._beyond(narrow, odd, texts)
            flags[beyond] |= OUTSIDE
            outside[beyond] = True
        scored = scores.astype("<f8")
        batch = Batch(
            key=key,
            release=self.release,
            scored_at=time.time_ns() // 1000,
            blocks=list(self._blocks(works, texts, wide, scored, flags)),
            fingerprint=fingerprint,
        )
        positive = int(np.count_nonzero(predicted))
        self._metrics.scored(len(wide), positive, len(works), time.perf_counter() - began)
        return Group(works, batch, scored, predicted, outside)

    def _beyond(self, narrow: np.ndarray, odd: np.ndarray, texts: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Which of the odd rows hold a value outside the range that was trained on; they are counted."""
        found = narrow[odd]
        marks, gaps = self.model.contract.beyond(found), np.isnan(found)
        for position, name in self._categories:
            # To the model the two are the same: what training did not know, and what was not measured.
            for place in np.flatnonzero(found[:, position] == UNKNOWN_CATEGORY).tolist():
                (marks if texts[name][odd[place]] else gaps)[place, position] = True
        self._metrics.odd(marks.sum(axis=0), gaps.sum(axis=0))
        return odd[marks.any(axis=1)]

    def _blocks(
        self,
        works: Sequence[Work],
        texts: dict[str, list[Any]],
        wide: np.ndarray,
        scores: np.ndarray,
        flags: np.ndarray,
    ) -> Iterator[tuple[int, bytes]]:
        texts = {name: values for name, values in texts.items() if name in self._names}
        context = _joined([work.rows.context for work in works], works)
        values = wide[:, self._kept].astype("<f8", copy=False)
        for start in range(0, len(wide), journal.MAX_ROWS):
            part = slice(start, start + journal.MAX_ROWS)
            block = Block(
                self._names,
                values[part].tobytes(),
                {name: texts[name][part] for name in texts},
                scores[part].tobytes(),
                flags[part].tobytes(),
                {name: context[name][part] for name in context},
            )
            yield len(flags[part]), journal.encode(block)

    def _write(self) -> None:
        """Write all that is scored, in one commit: of what was scored beside the last one, too."""
        groups, self._scored = self._scored, []
        if groups:
            self._commit(groups)

    def _commit(self, groups: Sequence[Group]) -> None:
        began = time.perf_counter()
        try:
            receipts = self._writer.write([group.batch for group in groups])
        except Exception as error:
            if isinstance(error, DiskFull) and len(groups) > 1:
                # One that is too large for what is left must not fail those that happened to come with it.
                for group in groups:
                    self._commit([group])
                return
            for group in groups:
                for work in group.works:
                    work.done(error)
            return
        fresh = [group for group, receipt in zip(groups, receipts, strict=True) if not receipt.repeated]
        if fresh:
            rows = sum(len(group.scores) for group in fresh)
            requests = sum(len(group.works) for group in fresh)
            self._metrics.committed(rows, requests, time.perf_counter() - began)
        for group, receipt in zip(groups, receipts, strict=True):
            self._answer(group, receipt)

    def _answer(self, group: Group, receipt: Receipt) -> None:
        """Tell each work what is on disk."""
        if receipt.repeated:
            for work in group.works:
                work.done(Repeated(receipt))
            return
        head = Head(self.release, group.batch.scored_at, self.model.contract.threshold)
        whole = Answer(receipt.first, group.scores, group.predicted, group.outside, head)
        if len(group.works) == 1:
            group.works[0].done(whole)
            return
        first, scores, predicted, outside, _ = whole.listed()
        start = 0
        for work in group.works:
            end = start + work.rows.number
            work.done(
                Answer(first + start, scores[start:end], predicted[start:end], outside[start:end], head)
            )
            start = end


def _together(works: Sequence[Work]) -> np.ndarray:
    """The rows of several requests, float64, shape (rows, inputs)."""
    if all(isinstance(work.rows.wide, list) for work in works):
        return np.array([row for work in works for row in work.rows.wide], np.float64)
    return np.concatenate([matrix(work.rows) for work in works])


def _joined(columns: Sequence[dict[str, Any]], works: Sequence[Work]) -> dict[str, list[Any]]:
    """Columns of several requests as one; a request that lacks one has None there."""
    if len(columns) == 1:
        return {name: list(values) for name, values in columns[0].items()}
    if not any(columns):
        return {}
    joined: dict[str, list[Any]] = {name: [] for one in columns for name in one}
    for one, work in zip(columns, works, strict=True):
        missing = [None] * work.rows.number
        for name, values in joined.items():
            values += one.get(name, missing)
    return joined
