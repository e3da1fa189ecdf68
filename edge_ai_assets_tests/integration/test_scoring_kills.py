"""kill -9 under load, again and again at random moments: no score that was answered is lost or changed.

Hundreds of times (`make proofs`): SERVICE_KILLS=50 pytest -m integration -k killed_again

The clients never send a request again, but for those with a key, which are asked again after each restart.
Each row says in its context which request it is of, so it can be told that nothing is there twice either.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import decode
from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.scoring.folder import Release, Wish
from edge_ai_assets.scoring.model import Model
from edge_ai_assets_tests.scoring.processes import SITE, Asking, Service, alive, environment_of, wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KILLS = int(os.environ.get("SERVICE_KILLS", "10"))
"""Of each of the sites that are played at the same time."""
SITES = 2
LONGEST = 0.3
"""Seconds from one service that is ready to its end."""
SUPERVISOR = """
import sys
from edge_ai_assets.scoring import keeper, supervisor
keeper.BACKOFF_SECONDS = keeper.BACKOFF_LIMIT_SECONDS = 0.01  # it would wait longer with each crash
sys.exit(supervisor.main(sys.argv[1:]))
"""
Columns = dict[str, list[Any]]


class Acknowledged(NamedTuple):
    first: int
    scores: list[float]
    predicted: list[bool]
    outside: list[bool]
    release: str


class Target(NamedTuple):
    """A service that is killed and comes back."""

    url: Callable[[], str | None]
    kill: Callable[[random.Random], None]
    """Returns when requests are taken again."""


class Load:
    """Clients of one site, each a thread, and what became of each request."""

    def __init__(self, target: Target, seed: int) -> None:
        self.sent: dict[str, Columns] = {}
        self.acknowledged: dict[str, Acknowledged] = {}
        self.refused: dict[str, str] = {}
        self.unsure: set[str] = set()
        """Requests that were sent, and whose connection broke before an answer."""
        self.interrupted = self.repeated = 0
        self.wrong: list[str] = []
        self._keys: list[str] = []
        self._target, self._end = target, threading.Event()
        posts = [self._one, self._records, self._records, self._columns, self._keyed]
        self._threads = [
            threading.Thread(target=self._run, args=(post, f"{post.__name__}-{number}", seed * 100 + number))
            for number, post in enumerate(posts)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, post: Callable[[Asking, random.Random, str], None], name: str, seed: int) -> None:
        """Post until the end; a connection that broke is left, and so is the request that was on it."""
        rng, number = random.Random(seed), 0
        while not self._end.is_set():
            url = self._target.url()
            try:
                with Asking(url) if url else contextlib.nullcontext() as asking:
                    while asking and not self._end.is_set():
                        number += 1
                        post(asking, rng, f"{name}/{number}")
            except ConnectionRefusedError:
                pass  # there is nobody just now; the request was never sent
            except (OSError, http.client.HTTPException):
                self.interrupted += 1
            except Exception as error:
                self.wrong.append(f"{name}/{number}: {error!r}")
                return
            time.sleep(0.01)

    def _one(self, asking: Asking, rng: random.Random, run: str) -> None:
        self._post(asking, run, self._made(rng, run, 1), "records")

    def _records(self, asking: Asking, rng: random.Random, run: str) -> None:
        self._post(asking, run, self._made(rng, run, rng.choice((2, 7, 40, 300))), "records")
        time.sleep(0.005)

    def _columns(self, asking: Asking, rng: random.Random, run: str) -> None:
        self._post(asking, run, self._made(rng, run, 1000), "columns")
        time.sleep(0.05)

    def _keyed(self, asking: Asking, rng: random.Random, run: str) -> None:
        """One with a new key, and some that came before, whose answer is known or was never seen."""
        unanswered = [name for name in self._keys[-3:] if name not in self.acknowledged]
        for name in [*unanswered, *rng.sample(self._keys, min(2, len(self._keys)))]:
            before = self.acknowledged.get(name)
            self._post(asking, name, self.sent[name], "columns", key=name)
            if before is not None:
                self.repeated += 1
                if before != self.acknowledged[name]:
                    self.wrong.append(f"{name}: {before}, repeated {self.acknowledged[name]}")
        self._keys.append(run)
        self._post(asking, run, self._made(rng, run, rng.randint(1, 3)), "columns", key=run)

    def _made(self, rng: random.Random, run: str, rows: int) -> Columns:
        made: Columns = {
            "Pressure [bar]": [rng.uniform(0, 25) for _ in range(rows)],
            "Temperature": [rng.choice((None, rng.uniform(-40, 150))) for _ in range(rows)],
            "Pump type": [rng.choice((None, "screw", "centrifugal")) for _ in range(rows)],
        }
        self.sent[run] = made
        return made

    def _post(self, asking: Asking, run: str, made: Columns, how: str, key: str | None = None) -> None:
        rows = len(made["Temperature"])
        context = {"_run": [run] * rows, "_row": list(range(rows))}
        if how == "columns":
            body: Any = {"columns": made, "context": context}
        else:
            both = made | context
            body = {
                "records": [dict(zip(both, row, strict=True)) for row in zip(*both.values(), strict=True)]
            }
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            answer = asking.ask("POST", "/v1/score", json.dumps(body).encode(), headers)
        except ConnectionRefusedError:
            if key is None:
                del self.sent[run]
            raise
        except (OSError, http.client.HTTPException):
            self.unsure.add(run)
            raise
        if answer.status == 503 and (run in self.unsure or run in self.acknowledged):
            return  # it may have been written the time before
        if answer.status != 200:
            self.refused[run] = f"{answer.status} {answer.body.decode()}"
            return
        self.refused.pop(run, None)
        self.acknowledged[run] = _acknowledged(answer.json)


def _acknowledged(said: dict[str, Any]) -> Acknowledged:
    if "results" in said:
        results = said["results"]
        numbers = [_number(each["id"]) for each in results]
        assert numbers == list(range(numbers[0], numbers[0] + len(results)))
        columns = {name: [each[name] for each in results] for name in ("score", "predicted", "outside")}
        return Acknowledged(numbers[0], *columns.values(), said["release"])
    return Acknowledged(
        _number(said["first"]), said["scores"], said["predicted"], said["outside"], said["release"]
    )


def _number(identity: str) -> int:
    site, number = identity.split("/")
    assert site == SITE
    return int(number)


@contextlib.contextmanager
def served(folder: Path, release: Path, workers: int) -> Iterator[Target]:
    """The service by itself: with several workers one of them is killed, or the one that keeps them."""
    services = [Service(folder, release, workers=workers)]
    addresses = [services[0].url]
    begun: set[int] = set()

    def kill(rng: random.Random) -> None:
        service = services[-1]
        chosen = [] if workers == 1 or rng.random() < 0.3 else service.workers
        chosen = chosen or [service.pid]  # none is there when the last is being replaced
        begun.update(service.workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(chosen), signal.SIGKILL)
        if chosen == [service.pid]:
            service.process.wait(60)
        else:
            # Not until it is replaced: the next one may die meanwhile, or the new one before it is ready,
            # which ends the service.
            time.sleep(0.1)
        if service.process.poll() is not None:
            # Former workers may still be about to end: they and the new ones share the outbox.
            services.append(Service(folder, release, workers=workers))
            addresses.append(services[-1].url)

    try:
        yield Target(lambda: addresses[-1], kill)
        service = services[-1]
        begun.update(service.workers)
        # 1: a worker was killed before it was ready, just now. -15: so it was, and Python was already at its
        # end, where a signal does again what it does by default.
        assert service.end() in (0, 1, -signal.SIGTERM)
        wait(lambda: not any(alive(pid) for pid in begun))
    finally:
        for service in services:
            service.__exit__()
        for pid in filter(alive, begun):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def supervised(folder: Path, release: Path) -> Iterator[Target]:
    """A site with its supervisor: the serving process is killed, now and then the supervisor."""
    folder.mkdir()
    files.write_wish(folder, Wish(Release("sha256:1", 1, str(release))))
    command = [sys.executable, "-c", SUPERVISOR, "--folder", str(folder), "--site", SITE]
    supervisors: list[subprocess.Popen[bytes]] = []

    def serves(former: int | None) -> int | None:
        status = supervisor.status(folder)
        return status.child_pid if status and status.child_pid != former else None

    def start() -> None:
        supervisors.append(
            subprocess.Popen(command, env=environment_of(), stderr=subprocess.DEVNULL, cwd=folder)
        )

    def kill(rng: random.Random) -> None:
        child = wait(lambda: serves(None))
        if rng.random() < 0.15:
            supervisors[-1].kill()
            supervisors[-1].wait(60)
            start()
        else:
            os.kill(child, signal.SIGKILL)
        wait(lambda: serves(child))

    def url() -> str | None:
        status = supervisor.status(folder)
        return status.url if status else None

    try:
        start()
        wait(lambda: serves(None))
        yield Target(url, kill)
    finally:
        supervisor.stop(folder)
        for each in supervisors:
            each.wait(60)


def assert_all_kept_once(outbox: Path, load: Load, model: Model) -> None:
    """What was answered is there as it was answered, what was refused is not, and nothing is there twice."""
    acknowledged = {
        each.first + row: (run, row)
        for run, each in load.acknowledged.items()
        for row in range(len(each.scores))
    }
    assert len(acknowledged) == sum(len(each.scores) for each in load.acknowledged.values())
    seen: set[tuple[str, int]] = set()
    with Outbox(outbox, create=False) as found:
        counts = found.counts()
        assert counts.conserved and counts == found.recount()
        last = 0
        while rows := found.rows(last + 1, last + 5_000):
            for row in rows:
                last += 1
                assert row.sequence == last
                record = decode(row)
                run, place = str(record.context.run), record.context.row
                assert place is not None and (run, place) not in seen
                seen.add((run, place))
                sent = {name: values[place] for name, values in load.sent[run].items()}
                assert record.inputs == sent | {"Temperature mean 12": None}
                assert run not in load.refused
                if last in acknowledged:
                    assert acknowledged[last] == (run, place)
                    said = load.acknowledged[run]
                    assert row.score == said.scores[place] and row.release == said.release
                    assert bool(row.predicted) is said.predicted[place]
                    assert bool(row.outside) is said.outside[place]
    assert last == counts.scored and last >= max(acknowledged)
    # What was neither answered nor refused was on its way when the service was killed: all of it, or nothing.
    for run in {run for run, _ in seen}:
        assert {(run, row) for row in range(len(load.sent[run]["Temperature"]))} <= seen
    for run, said in load.acknowledged.items():
        scores = model.score(model.contract.encode(load.sent[run]))
        np.testing.assert_allclose(said.scores, scores, rtol=1e-5, err_msg=run)


def play(folder: Path, seed: int, mode: str, release: Path) -> Load:
    """One site, until it has been killed so many times."""
    rng = random.Random(seed)
    site = supervised(folder, release) if mode == "supervised" else served(folder, release, int(mode))
    with site as target, Load(target, seed) as load:
        kills = 0
        while kills < KILLS or len(load.acknowledged) <= 10 * KILLS or load.repeated <= KILLS:
            # Mostly when somebody was answered again. If the service has ended nobody is: the kill sees that.
            answered, until = len(load.acknowledged), time.monotonic() + rng.choice((0, 5, 5, 5))
            while len(load.acknowledged) == answered and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, LONGEST))
            target.kill(rng)
            kills += 1
            assert kills < 20 * KILLS and not load.wrong
        time.sleep(LONGEST)
    return load


@pytest.mark.parametrize("mode", ["1", "3", "supervised"])
def test_no_answer_is_lost_though_the_service_is_killed_again_and_again(tmp_path: Path, mode: str):
    release = tiny_release(tmp_path / "release")
    model = Model(release)
    folders = [tmp_path / f"{mode}-{number}" for number in range(SITES)]
    with ThreadPoolExecutor(SITES) as threads:
        loads = list(threads.map(lambda each: play(each[1], each[0], mode, release), enumerate(folders)))
    for folder, load in zip(folders, loads, strict=True):
        assert load.wrong == []
        assert not [said for said in load.refused.values() if not said.startswith("503")]
        assert_all_kept_once(folder / "outbox.db", load, model)
        print(
            f"{mode}: {len(load.acknowledged)} answered, {load.interrupted} interrupted, "
            f"{len(load.refused)} refused, {load.repeated} repeated"
        )
        assert load.interrupted > KILLS // 2  # the kills hit those who were asking
