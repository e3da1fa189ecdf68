"""Scoring in groups: each request gets its own answer, whoever came with it, and not before it is on disk."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets.returns.outbox import journal
from edge_ai_assets.returns.outbox.schema import Batch, Receipt
from edge_ai_assets.scoring import scorer as module
from edge_ai_assets.scoring.answers import Answer
from edge_ai_assets.scoring.bodies.json_body import JsonReader
from edge_ai_assets.scoring.contract import Contract, ContractError
from edge_ai_assets.scoring.metrics import Metrics
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import Rows
from edge_ai_assets.scoring.scorer import QueueFull, Repeated, Scorer, Work
from edge_ai_assets.scoring.writer import Busy, DiskFull
from edge_ai_assets_tests.scoring.serving import RECORD, on_loop
from edge_ai_assets_tests.tiny_model import INPUTS, WEIGHTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault")
READER = JsonReader(CONTRACT)


class Sigmoid:
    """A model in numpy, each row for itself; it may be made to wait or to fail."""

    def __init__(self, contract: Contract = CONTRACT) -> None:
        self.contract = contract
        self.calls: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[np.ndarray], bool] = lambda matrix: False

    def score(self, matrix: np.ndarray) -> np.ndarray:
        assert self.gate.wait(60)
        self.calls.append(len(matrix))
        self.threads.add(threading.current_thread())
        if self.fail(matrix):
            raise ZeroDivisionError("the model failed")
        sums = (np.nan_to_num(matrix.astype(np.float64)) * WEIGHTS).sum(axis=1) - 2
        return (1 / (1 + np.exp(-sums))).astype(np.float32)

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        return scores.astype(np.float64) >= self.contract.threshold


class Disk:
    """A writer that keeps batches in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.keys: dict[str, Receipt] = {}
        self.error: Exception | None = None
        self.last = 0
        self.room = 10**9
        """Rows that a commit may have."""
        self.commits: list[int] = []
        """How many batches each had."""

    def write(self, batches: list[Batch]) -> list[Receipt]:
        if self.error is not None:
            raise self.error
        if sum(batch.rows for batch in batches) > self.room:
            raise DiskFull("no room")
        self.commits.append(len(batches))
        return [self._write(batch) for batch in batches]

    def _write(self, batch: Batch) -> Receipt:
        if batch.key in self.keys:
            seen = self.keys[batch.key]
            return msgspec.structs.replace(seen, repeated=True)
        self.batches.append(batch)
        receipt = Receipt(self.last + 1, batch.rows, repeated=False)
        self.last += batch.rows
        if batch.key is not None:
            self.keys[batch.key] = receipt
        return receipt

    def rows(self) -> list[journal.Row]:
        """All rows written, as they will be read."""
        return [
            row
            for batch in self.batches
            for number, block in batch.blocks
            for row in journal.rows(block, journal.BLOCK_SCHEMA, number)
        ]


class Site:
    def __init__(self, contract: Contract = CONTRACT) -> None:
        self.model, self.disk = Sigmoid(contract), Disk()
        self.metrics = Metrics(None, contract)
        self.scorer = Scorer(self.model, "sha256:aa", self.disk, self.metrics)  # type: ignore[arg-type]

    async def alone(self, rows: Rows, **known: Any) -> Answer:
        """One large request, a byte a row."""
        with self.scorer.holding(rows.number):
            _, answer = await self.scorer.score(lambda: rows, **known)
        return answer.listed()

    async def together(self, *requests: Rows) -> list[Answer | Exception]:
        """Small requests that come while the loop turns once."""
        outcomes: list[list[Answer | Exception]] = [[] for _ in requests]
        for rows, outcome in zip(requests, outcomes, strict=True):
            self.scorer.submit(Work(rows, outcome.append))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(len(outcome) == 1 for outcome in outcomes)  # told once, all of them
        return [said.listed() if isinstance(said, Answer) else said for (said,) in outcomes]


def read(*records: dict[str, Any]) -> Rows:
    return READER.read(json.dumps({"records": records}).encode())


def columnar(*records: dict[str, Any]) -> Rows:
    columns = {name: [record[name] for record in records] for name in records[0]}
    return READER.read(json.dumps({"columns": columns}, separators=(",", ":")).encode())


@on_loop
async def test_what_comes_while_the_loop_turns_once_is_one_call_and_one_block():
    site = Site()
    answers = await site.together(*(read(RECORD | {"Temperature": t}) for t in range(30)))
    assert site.model.calls == [30] and [len(batch.blocks) for batch in site.disk.batches] == [1]
    assert [answer.first for answer in answers] == list(range(1, 31))
    scores = [answer.scores[0] for answer in answers]
    assert scores == sorted(scores) and len(set(scores)) == 30
    assert [row.score for row in site.disk.rows()] == scores
    assert [json.loads(row.record)["inputs"]["Temperature"] for row in site.disk.rows()] == list(range(30))


@on_loop
async def test_a_group_ends_where_it_would_become_too_large(monkeypatch):
    monkeypatch.setattr(module, "GROUP_ROWS", 10)
    site = Site()
    answers = await site.together(*([read(*[RECORD] * 4)] * 5), read(*[RECORD] * 50), read(RECORD))
    assert site.model.calls == [8, 8, 4, 50, 1]
    assert [answer.first for answer in answers] == [1, 5, 9, 13, 17, 21, 71]


@on_loop
async def test_nothing_is_left_waiting_when_the_loop_is_idle():
    site = Site()
    for _ in range(3):
        (answer,) = await site.together(read(RECORD))
        assert isinstance(answer, Answer)
    assert site.scorer._pending == [] and site.scorer._rows == 0


@pytest.mark.parametrize("bad", [{"Temperature": 151}, {"Pressure [bar]": -0.1}])
@pytest.mark.parametrize("place", [0, 1, 2])
@on_loop
async def test_one_that_is_refused_fails_alone(bad: dict[str, float], place: int):
    site = Site()
    requests = [read(RECORD, RECORD), columnar(RECORD)]
    requests.insert(place, read(RECORD, RECORD | bad))
    answers = await site.together(*requests)
    refused = answers.pop(place)
    assert isinstance(refused, ContractError) and str(refused).startswith("row 1: ")
    assert [(answer.first, len(answer.scores)) for answer in answers] == [(1, 2), (3, 1)]
    assert len(site.disk.rows()) == 3


@on_loop
async def test_a_model_that_fails_for_one_fails_for_that_one_only():
    site = Site()
    site.model.fail = lambda matrix: bool((matrix[:, 1] == 13).any())
    answers = await site.together(*(read(RECORD | {"Temperature": t}) for t in range(12, 15)))
    assert [type(answer).__name__ for answer in answers] == ["Answer", "ZeroDivisionError", "Answer"]
    assert len(site.disk.rows()) == 2


@on_loop
async def test_a_disk_that_fails_fails_all_of_the_group_and_none_is_answered():
    site = Site()
    site.disk.error = Busy("held")
    assert await site.together(read(RECORD), read(RECORD)) == [site.disk.error] * 2
    with pytest.raises(Busy):
        await site.alone(read(RECORD))
    site.disk.error = None
    (answer,) = await site.together(read(RECORD))
    assert isinstance(answer, Answer) and answer.first == 1


values = st.none() | st.floats(0, 25, width=32)
record = st.fixed_dictionaries(
    {
        "Pressure [bar]": values,
        "Temperature": values,
        "Pump type": st.none() | st.sampled_from(["screw", "x"]),
    },
    optional={"_run": st.none() | st.text(max_size=3), "_row": st.none() | st.integers(0, 9)},
)
whole = st.fixed_dictionaries(
    {
        "Pressure [bar]": values,
        "Temperature": values,
        "Pump type": st.none() | st.sampled_from(["screw", "x"]),
    }
)
requests = st.lists(
    st.lists(record, min_size=1, max_size=4).map(lambda found: read(*found))
    | st.lists(whole, min_size=1, max_size=4).map(lambda found: columnar(*found)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150)
@given(requests)
def test_in_a_group_each_gets_what_it_would_get_alone(together: list[Rows]):
    async def run() -> None:
        site, alone = Site(), Site()
        answers = await site.together(*together)
        for number, (rows, answer) in enumerate(zip(together, answers, strict=True)):
            (single,) = await alone.together(rows)
            large = await alone.alone(rows)
            assert answer._replace(first=0, head=None) == single._replace(first=0, head=None)
            assert answer._replace(first=0, head=None) == large._replace(first=0, head=None), number
        kept = site.disk.rows()
        separately = alone.disk.rows()
        at = twice = 0
        for rows in together:  # in `alone` each is there twice
            mine = kept[at : at + rows.number]
            for other in (separately[twice : twice + rows.number], separately[twice + rows.number :]):
                for one, another in zip(mine, other, strict=False):
                    assert known(one) == known(another)
            at, twice = at + rows.number, twice + 2 * rows.number
        assert at == len(kept)
        site.scorer.close()
        alone.scorer.close()

    asyncio.run(run())


def known(row: journal.Row) -> tuple[Any, ...]:
    """A row without the context that nobody gave, which others of its group may have had."""
    record = json.loads(row.record)
    context = {name: value for name, value in record["context"].items() if value is not None}
    return row.score, row.predicted, row.outside, record["inputs"], context


@on_loop
async def test_a_large_request_is_scored_in_a_thread_and_written_in_blocks():
    site = Site()
    number = 2 * journal.MAX_ROWS + 1
    answer = await site.alone(read(*[RECORD] * number))
    assert threading.main_thread() not in site.model.threads
    assert [rows for rows, _ in site.disk.batches[0].blocks] == [journal.MAX_ROWS, journal.MAX_ROWS, 1]
    assert answer.first == 1 and len(answer.scores) == number == len(site.disk.rows())
    assert site.scorer.waiting == 0


@on_loop
async def test_what_is_scored_beside_a_commit_shares_the_next():
    site = Site()
    site.model.gate.clear()
    large = [asyncio.create_task(site.alone(read(*[RECORD] * number))) for number in (3, 5)]
    await asyncio.sleep(0.01)
    site.model.gate.set()
    time.sleep(0.1)  # the loop stands still, as while the disk works: both become ready
    answers = [*await site.together(read(RECORD)), *[await each for each in large]]
    assert sum(site.disk.commits) == 3 and max(site.disk.commits) > 1
    numbers = [n for each in answers for n in range(each.first, each.first + len(each.scores))]
    assert sorted(numbers) == list(range(1, 10))


@on_loop
async def test_one_that_the_disk_has_no_room_for_fails_alone():
    site = Site()
    site.disk.room = 50
    site.model.gate.clear()
    too_large, fits = (asyncio.create_task(site.alone(read(*[RECORD] * number))) for number in (51, 3))
    await asyncio.sleep(0.01)
    site.model.gate.set()
    time.sleep(0.1)  # as above
    with pytest.raises(DiskFull):
        await too_large
    assert len((await fits).scores) == 3 == len(site.disk.rows())


@on_loop
async def test_who_waits_no_more_takes_no_answer_from_those_it_shares_a_commit_with():
    site = Site()
    site.model.gate.clear()
    tasks = {number: asyncio.create_task(site.alone(read(*[RECORD] * number))) for number in (3, 4)}
    await asyncio.sleep(0.01)
    site.model.gate.set()
    time.sleep(0.1)  # as above
    while len(site.scorer._scored) < 2:
        await asyncio.sleep(0)
    gone = tasks.pop(len(site.scorer._scored[0].scores))  # it would be told first
    gone.cancel()
    ((number, there),) = tasks.items()
    assert len((await there).scores) == number
    assert gone.cancelled() and len(site.disk.rows()) == 7


@on_loop
async def test_small_requests_do_not_wait_for_large_ones():
    site = Site()
    site.model.gate.clear()
    large = asyncio.create_task(site.alone(read(*[RECORD] * 100)))
    await asyncio.sleep(0.01)
    assert site.scorer.waiting == 100
    site.model.gate.set()
    (small,) = await site.together(read(RECORD))
    assert isinstance(small, Answer)
    assert (await large).scores[0] == small.scores[0]


@on_loop
async def test_more_than_may_wait_is_refused_but_one_alone_never(monkeypatch):
    monkeypatch.setattr(module, "WAITING_BYTES", 10)
    site = Site()
    site.model.gate.clear()
    first = asyncio.create_task(site.alone(read(*[RECORD] * 50)))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="50 bytes are waiting to be scored, at most 10 may"):
        await site.alone(read(RECORD))
    site.model.gate.set()
    assert len((await first).scores) == 50
    assert len((await site.alone(read(*[RECORD] * 50))).scores) == 50
    assert site.scorer.waiting == 0


@on_loop
async def test_a_large_request_is_read_where_it_is_scored_and_one_that_cannot_be_gives_its_place_back():
    site = Site()
    threads: list[threading.Thread] = []

    def unreadable() -> Rows:
        threads.append(threading.current_thread())
        raise Refused(400, "no JSON")

    with pytest.raises(Refused, match="no JSON"), site.scorer.holding(9):
        await site.scorer.score(unreadable)
    await site.alone(read(RECORD))
    assert site.scorer.waiting == 0 and set(threads) <= site.model.threads and len(site.disk.rows()) == 1


@on_loop
async def test_a_refused_large_request_gives_its_place_back():
    site = Site()
    for _ in range(2):
        with pytest.raises(ContractError, match="row 1: 'Temperature' is 151"):
            await site.alone(read(RECORD, RECORD | {"Temperature": 151}))
    assert site.scorer.waiting == 0 and site.disk.batches == []


@on_loop
async def test_a_key_that_is_known_by_now_is_told_and_nothing_is_written():
    site = Site()
    first = await site.alone(read(RECORD, RECORD), key="a", fingerprint=b"1")
    with pytest.raises(Repeated) as caught:
        await site.alone(read(RECORD, RECORD), key="a", fingerprint=b"1")
    assert (caught.value.receipt.first, caught.value.receipt.rows) == (first.first, 2)
    assert (site.disk.batches[0].key, site.disk.batches[0].fingerprint) == ("a", b"1")
    assert len(site.disk.rows()) == 2


@pytest.mark.parametrize(
    ("temperature", "outside"), [(0.0, False), (90.0, False), (90.5, True), (-0.5, True), (None, False)]
)
@on_loop
async def test_outside_of_training_is_marked(temperature: float | None, outside: bool):
    site = Site()
    (answer,) = await site.together(read(RECORD | {"Temperature": temperature}))
    assert answer.outside == [outside] == [row.outside for row in site.disk.rows()]


@pytest.mark.parametrize(
    ("kind", "outside", "missing"),
    [("screw", False, 0), ("screwe", True, 0), ("", False, 1), (None, False, 1)],
)
@on_loop
async def test_a_category_that_training_did_not_know_is_outside_of_it(
    kind: str | None, outside: bool, missing: int
):
    site = Site()
    alone, beside = await site.together(read(RECORD | {"Pump type": kind}), read(RECORD, RECORD))
    assert alone.outside == [outside] and beside.outside == [False, False]
    assert [row.outside for row in site.disk.rows()] == [outside, False, False]
    (worker,) = site.metrics._workers()
    assert worker.values["edge_ai_outside_values", ("Pump type",)] == [float(outside)]
    assert worker.values["edge_ai_missing_values", ("Pump type",)] == [float(missing)]


@on_loop
async def test_a_score_at_the_threshold_is_positive_as_the_answer_shows_it():
    (answer,) = await Site().together(read(*(RECORD | {"Temperature": t} for t in range(90))))
    assert answer.predicted == [score >= 0.5 for score in answer.scores]
    assert len(set(answer.predicted)) == 2


@pytest.mark.parametrize("hidden", [{"Temperature"}, {"Pump type"}, {item.name for item in INPUTS}])
@on_loop
async def test_inputs_that_are_not_kept_are_scored_and_not_written(hidden: set[str]):
    inputs = tuple(msgspec.structs.replace(item, kept=item.name not in hidden) for item in INPUTS)
    site, open_site = Site(Contract("tiny", inputs, 0.5, "fault")), Site()
    (answer,), (same,) = await site.together(read(RECORD)), await open_site.together(read(RECORD))
    assert answer.scores == same.scores
    (row,) = site.disk.rows()
    assert json.loads(row.record)["inputs"].keys() == {item.name for item in INPUTS} - hidden
    ((_, block),) = site.disk.batches[0].blocks
    found = msgspec.msgpack.decode(block, type=journal.Block)
    assert not hidden & {*found.names, *found.texts} and len(found.values) == 8 * len(found.names)


@on_loop
async def test_what_is_counted():
    site = Site()
    await site.together(read(RECORD), read(RECORD | {"Temperature": None}, RECORD | {"Temperature": 95}))
    (worker,) = site.metrics._workers()
    assert worker.values["edge_ai_rows", ()] == [3.0]
    assert worker.values["edge_ai_outside_values", ("Temperature",)] == [1.0]
    assert worker.values["edge_ai_missing_values", ("Temperature",)] == [1.0]


@on_loop
async def test_a_request_that_comes_again_is_no_commit():
    site = Site()
    await site.alone(read(RECORD), key="a")
    with pytest.raises(Repeated):
        await site.alone(read(RECORD), key="a")
    (worker,) = site.metrics._workers()
    assert worker.values["edge_ai_commit_requests", ()] == [1.0]
    assert sum(worker.values["edge_ai_commit_rows", ()][:-1]) == 1
