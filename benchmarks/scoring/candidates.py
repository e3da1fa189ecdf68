"""Who is compared: how each server is started, what it is asked, and where the scores are in its answer.

Every one has one worker, uvloop and httptools where it can use them, no access log where that can be switched
off, and gets the JSON in which it is fastest. In commands and environments `{port}`, and any other name in
braces, stands for a free port.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scoring import peers
from scoring.release import NAMES

SERVERS = Path(__file__).resolve().parent / "servers"
SITE = "bench"
RELEASE = "sha256:" + "0" * 64
EMPTY = "empty uvicorn"


class Candidate(NamedTuple):
    """A server that scores, or one that shows what HTTP alone costs."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    path: str
    """Where rows are posted."""
    body: Callable[[np.ndarray], Any] | None
    """What is posted for rows, float64, shape (n, inputs), before it is JSON; None: it gets GETs."""
    scores: Callable[[Any], list[float]]
    """The scores in an answer, in the order of the rows."""
    kind: str = "peer"
    """peer, ours or empty."""
    needs: str = ""
    """The peer's environment; "" is this one."""


def ours(name: str, release: Path, outbox: Path, source: Path | None = None) -> Candidate:
    """Our service, every score on disk before it is answered.

    Args:
        source: folder with another version of the package; None is the one that is installed.
    """
    command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--port", "{port}"]
    command += ["--site", SITE, "--release", str(release), "--release-id", RELEASE, "--version", "1"]
    environment = {"PYTHONPATH": str(source.resolve())} if source else {}
    return Candidate(
        name, [*command, "--outbox", str(outbox)], environment, "/v1/score", _named, _ours, kind="ours"
    )


def empty() -> Candidate:
    """An answer that nothing was done for."""
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "--port",
        "{port}",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    return Candidate(
        EMPTY, [*uvicorn, "empty_asgi:app"], {"PYTHONPATH": str(SERVERS)}, "/", None, _scores, kind="empty"
    )


def known(model: Path) -> list[Candidate]:
    """Every peer that could be installed, serving this ONNX file."""

    def peer(
        name: str,
        command: str,
        path: str,
        body: Callable[[np.ndarray], Any] = _rows,
        scores: Callable[[Any], list[float]] = _scores,
        **settings: str,
    ) -> Candidate:
        program, _, arguments = command.partition(" ")
        binaries = peers.environment(name) / "bin"
        environment = {
            "BENCH_MODEL": str(model),
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(SERVERS),
            **settings,
        }
        words = [str(binaries / program), *arguments.replace("SERVERS", str(SERVERS)).split()]
        return Candidate(name, words, environment, path, body, scores, needs=name)

    fastapi = peer("fastapi", "uvicorn --port {port} --no-access-log fastapi_app:app", "/async", _flat)
    return [
        peer(
            "azureml",
            "azmlinfsrv --entry_script SERVERS/azureml_bench/entry.py --port {port} --health_port {health}",
            "/score",
        ),
        peer(
            "bentoml",
            "bentoml serve --host 127.0.0.1 --port {port} bentoml_service:Bench",
            "/score",
            scores=list,
            BENTOML_DO_NOT_TRACK="1",
        ),
        fastapi,
        fastapi._replace(name="fastapi, threads", path="/threads"),
        peer(
            "kserve",
            "python SERVERS/kserve_app.py {port}",
            "/v1/models/bench:predict",
            lambda rows: {"instances": rows.tolist()},
            lambda answer: answer["predictions"],
            KSERVE_LOGLEVEL="WARNING",
        ),
        peer("litserve", "python SERVERS/litserve_app.py {port}", "/predict"),
        peer(
            "mlflow",
            "python SERVERS/mlflow_app.py {port}",
            "/invocations",
            lambda rows: {"inputs": rows.tolist()},
            lambda answer: answer["predictions"],
        ),
        peer(
            "mlserver",
            "mlserver start SERVERS/mlserver_bench",
            "/v2/models/bench/infer",
            _tensor,
            lambda answer: answer["outputs"][0]["data"],
            MLSERVER_HTTP_PORT="{port}",
            MLSERVER_GRPC_PORT="{grpc_port}",
        ),
    ]


def _named(rows: np.ndarray) -> Any:
    """As our service takes them: one by name, many by column."""
    if len(rows) == 1:
        return {"records": [dict(zip(NAMES, rows[0].tolist(), strict=True))]}
    return {"columns": dict(zip(NAMES, rows.T.tolist(), strict=True))}


def _rows(rows: np.ndarray) -> Any:
    return {"rows": rows.tolist()}


def _flat(rows: np.ndarray) -> Any:
    return {"rows": rows.reshape(-1).tolist()}


def _tensor(rows: np.ndarray) -> Any:
    """Open Inference Protocol v2; flat data is what servers read fastest."""
    flat = {"data": rows.reshape(-1).tolist(), "shape": list(rows.shape), "datatype": "FP32"}
    return {"inputs": [{"name": "features", **flat}]}


def _ours(answer: Any) -> list[float]:
    if "results" in answer:
        return [row["score"] for row in answer["results"]]
    return _scores(answer)


def _scores(answer: Any) -> list[float]:
    return list(answer["scores"])
