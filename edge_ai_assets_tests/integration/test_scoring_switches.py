"""Releases are switched in both directions while clients ask without a pause: no request fails."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.returns.outbox.schema import decode
from edge_ai_assets.scoring import folder as files
from edge_ai_assets.scoring import supervisor
from edge_ai_assets.scoring.model import Model
from edge_ai_assets.scoring.supervisor import DeploymentFailed, Status
from edge_ai_assets_tests.scoring.processes import SECONDS, SITE, Asking, ask, wait
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PUMP = "screw"
BROKEN_EACH = 20
SWITCHES = int(os.environ.get("SERVICE_SWITCHES", "20"))
"""`make proofs` asks for 100."""


class Scored(NamedTuple):
    """One answered row: by which release, and for which pressure, which tells the rows apart."""

    sequence: int
    release: str
    pressure: float
    score: float


class Load:
    """Clients that ask without a pause and never twice, and what failed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.scored: list[Scored] = []
        self.failed: list[str] = []
        self._end = threading.Event()
        self._pressures = itertools.count(1)
        jobs: list[Callable[[Asking], None]] = [self._record, self._record, self._columns]
        jobs += [lambda asking, v=version: self._infer(asking, v) for version in (1, 2)]  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._run, args=(job, True)) for job in jobs]
        self._threads.append(threading.Thread(target=self._run, args=(self._record, False)))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, job: Callable[[Asking], None], keep: bool) -> None:
        """Ask until the end, on one connection as long as it is kept, or each time on a new one."""
        while not self._end.is_set():
            with Asking(self.url) as asking:
                while not self._end.is_set():
                    try:
                        job(asking)
                    except (OSError, http.client.HTTPException) as error:
                        self.failed.append(repr(error))
                    time.sleep(0.002)
                    if not keep:
                        break

    def _pressure(self) -> float:
        return next(self._pressures) / 1e6

    def _record(self, asking: Asking) -> None:
        pressure = self._pressure()
        record = {"Pressure [bar]": pressure, "Temperature": 10.0, "Pump type": PUMP}
        self._keep(asking.ask("POST", "/v1/score", json.dumps({"records": [record]}).encode()), [pressure])

    def _columns(self, asking: Asking) -> None:
        pressures = [self._pressure() for _ in range(50)]
        columns = {"Pressure [bar]": pressures, "Temperature": [10.0] * 50, "Pump type": [PUMP] * 50}
        self._keep(asking.ask("POST", "/v1/score", json.dumps({"columns": columns}).encode()), pressures)
        time.sleep(0.02)

    def _keep(self, answer: Any, pressures: list[float]) -> None:
        if answer.status != 200:
            self.failed.append(f"{answer.status} {answer.body[:200]!r}")
            return
        said = answer.json
        if "results" in said:
            rows = [(_number(each["id"]), each["score"]) for each in said["results"]]
        else:
            rows = list(enumerate(said["scores"], _number(said["first"])))
        self.scored += [
            Scored(number, said["release"], pressure, score)
            for (number, score), pressure in zip(rows, pressures, strict=True)
        ]

    def _infer(self, asking: Asking, version: int) -> None:
        """Ask one release by its number, whichever of the two is the current one."""
        pressure = self._pressure()
        values = {
            "Pressure [bar]": ("FP64", pressure),
            "Temperature": ("FP64", 10.0),
            "Pump type": ("BYTES", PUMP),
        }
        inputs = [
            {"name": name, "datatype": kind, "shape": [1], "data": [value]}
            for name, (kind, value) in values.items()
        ]
        body = json.dumps({"inputs": inputs}).encode()
        answer = asking.ask("POST", f"/v2/models/tiny/versions/{version}/infer", body)
        if answer.status != 200 or answer.json["model_version"] != str(version):
            self.failed.append(f"version {version}: {answer.status} {answer.body[:200]!r}")
            return
        found = {each["name"]: each["data"][0] for each in answer.json["outputs"]}
        self.scored.append(Scored(_number(found["id"]), f"sha256:{version}", pressure, found["score"]))
        time.sleep(0.005)


def _number(identity: str) -> int:
    return int(identity.removeprefix(f"{SITE}/"))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    yield folder
    supervisor.stop(folder)


def deploy(folder: Path, version: int, path: Path) -> Status:
    return supervisor.deploy(folder, site=SITE, release_id=f"sha256:{version}", version=version, path=path)


def told_by_former(url: str, version: int, deploying: Callable[[], Status]) -> Status:
    """Deploy while a connection of the former release is open: it is answered by that one, and closed."""
    record = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": "centrifugal"}
    body = json.dumps({"records": [record]}).encode()
    with Asking(url) as former:
        before = former.ask("POST", "/v1/score", body)
        status = deploying()
        # It may not have been told yet that there is another one.
        answers = [former.ask("POST", "/v1/score", body)]
        until = time.monotonic() + SECONDS
        while answers[-1].headers.get("connection") != "close":
            answers.append(former.ask("POST", "/v1/score", body))
            assert time.monotonic() < until
    assert {before.json["release"], *(each.json["release"] for each in answers)} == {f"sha256:{3 - version}"}
    wait(lambda: ask(url, "/v1/contract").json["release"] == f"sha256:{version}")
    return status


@pytest.mark.parametrize(("switches", "workers"), [(SWITCHES, 1), (10, 2)])
def test_no_request_fails_while_releases_are_switched(
    tmp_path: Path, folder: Path, switches: int, workers: int
):
    releases = {version: tiny_release(tmp_path / str(version), bias=-float(version)) for version in (1, 2)}
    broken = shutil.copytree(releases[1], tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no model")
    (folder / "service.toml").write_text(f"workers = {workers}\n")
    deploy(folder, 2, releases[2])
    url = deploy(folder, 1, releases[1]).url  # from here on each is served by its number
    assert url is not None
    # Until the one before the two has ended, it would still say that it knows no other.
    wait(
        lambda: all(ask(url, f"/v2/models/tiny/versions/{version}/ready").status == 200 for version in (1, 2))
    )
    began, failures = time.monotonic(), 0
    with Load(url) as load:
        for number in range(switches):
            version = 2 - number % 2
            if number % BROKEN_EACH == BROKEN_EACH // 2:
                with pytest.raises(DeploymentFailed, match=r"cannot be loaded.*still serves"):
                    supervisor.deploy(folder, site=SITE, release_id="sha256:9", version=9, path=broken)
                failures += 1
            status = told_by_former(url, version, lambda v=version: deploy(folder, v, releases[v]))  # type: ignore[misc]
            assert (status.url, status.release_id) == (url, f"sha256:{version}")
        wait(lambda: load.scored[-1].release)
    seconds = time.monotonic() - began
    assert load.failed == []
    assert failures == switches // BROKEN_EACH
    assert supervisor.status(folder).restarts == 0  # type: ignore[union-attr]
    assert_every_row_says_which(folder / files.OUTBOX, load, {v: Model(path) for v, path in releases.items()})
    print(
        f"{workers} worker(s): {switches} switches, {len(load.scored)} rows in {seconds:.0f} s, none failed"
    )


def assert_every_row_says_which(outbox: Path, load: Load, models: dict[int, Model]) -> None:
    """The release that was answered is the one that is kept, and the one whose model gives that score."""
    with Outbox(outbox, create=False) as found:
        rows = found.rows(1, 10**9)
        assert found.counts() == found.recount() and found.counts().conserved
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    kept = {
        row.sequence: Scored(
            row.sequence, row.release, decode(row).inputs["Pressure [bar]"], row.score or 0.0
        )  # type: ignore[arg-type]
        for row in rows
        if decode(row).inputs["Pump type"] == PUMP
    }
    assert len(kept) == len(load.scored) == len({each.sequence for each in load.scored})
    for version, model in models.items():
        mine = [each for each in load.scored if each.release == f"sha256:{version}"]
        assert mine
        pressures = [each.pressure for each in mine]
        columns = {
            "Pressure [bar]": pressures,
            "Temperature": [10.0] * len(mine),
            "Pump type": [PUMP] * len(mine),
        }
        scores = model.score(model.contract.encode(columns))
        np.testing.assert_allclose([each.score for each in mine], scores, rtol=1e-5)
    for each in load.scored:
        assert kept[each.sequence][:3] == each[:3]
        assert abs(kept[each.sequence].score - each.score) < 1e-6
