"""The stock clients of the Open Inference Protocol against the service: JSON, binary, compressed, versions.

Each client is installed into an environment of its own below pytest's cache: their pins are not ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring.model import Model
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]
TRITON = "tritonclient[http]==2.73.0"
KSERVE = "kserve==0.21.0"
ROWS = 200
"""So many that answers are worth compressing."""
PRESSURE = np.linspace(0, 25, ROWS, dtype=np.float32)
PRESSURE[::7] = np.nan
TEMPERATURE = np.arange(ROWS) % 100
PUMP = [("centrifugal", "screw", "", "piston")[row % 4] for row in range(ROWS)]
COLUMNS = {
    "Pressure [bar]": PRESSURE,
    "Temperature": TEMPERATURE,
    "Pump type": [name or None for name in PUMP],
}
INPUTS = {
    "Pressure [bar]": ("FP32", [ROWS], [None if np.isnan(value) else float(value) for value in PRESSURE]),
    "Temperature": ("INT16", [ROWS, 1], TEMPERATURE.tolist()),
    "Pump type": ("BYTES", [ROWS], PUMP),
    "_run": ("BYTES", [ROWS], ["run 1"] * ROWS),
    "_row": ("INT64", [ROWS], list(range(ROWS))),
}
ALL = ["score", "predicted", "outside", "id"]
OUTPUTS = {
    "all": None,
    "some": [("id", True), ("score", False)],
    "json": [(name, False) for name in ALL],
}


class Service(NamedTuple):
    address: str
    outbox: Path
    models: dict[str, Model]
    """By version; the first is the one that answers if none is named."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with two releases of one use case, as a process."""
    home = tmp_path_factory.mktemp("site")
    biases = {"4": -2.0, "3": -1.0}
    models = {version: Model(tiny_release(home / version, bias=bias)) for version, bias in biases.items()}
    listener = socket.create_server(("127.0.0.1", 0))
    ready, tell = os.pipe()
    command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--site", "bergen"]
    command += ["--release", str(home / "4"), "--release-id", "sha256:4", "--version", "4"]
    command += ["--also", str(home / "3"), "sha256:3", "3", "--outbox", str(home / "outbox.db")]
    command += ["--fd", str(listener.fileno()), "--ready-fd", str(tell)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, env=environment, pass_fds=(listener.fileno(), tell))
    os.close(tell)
    with os.fdopen(ready) as line:
        assert line.readline() == "ready\n"
    yield Service(f"127.0.0.1:{listener.getsockname()[1]}", home / "outbox.db", models)
    process.terminate()
    assert process.wait(60) == 0
    listener.close()


def python_with(requirement: str, folder: Path) -> Path:
    """The interpreter of an environment with this package, installed when it is needed first."""
    home = folder / f"{requirement.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, done = home / "bin" / "python", home / "installed"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of pytest may be at it
        if not done.exists():
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
            for command in ([sys.executable, "-m", "venv", "--clear", home], install):
                made = subprocess.run(command, capture_output=True, text=True, timeout=600)
                if made.returncode:
                    missing = (
                        f"{requirement} cannot be installed: {(made.stderr or made.stdout).strip()[-300:]}"
                    )
                    pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
            done.touch()
    return python


def ask(script: str, requirement: str, asked: Any, config: pytest.Config, folder: Path) -> Any:
    """Run a client, and what it got."""
    cache = getattr(config, "cache", None)
    python = python_with(requirement, cache.mkdir("oip-clients") if cache else folder)
    command = [python, "-I", Path(__file__).with_name(script)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TRITON_CASES = {
    f"{'aio' if aio else 'sync'}, {'binary' if binary else 'JSON'}, outputs {outputs}, request {request}, "
    f"response {response}, version {version or 'none'}": {
        "aio": aio,
        "binary": binary,
        "outputs": OUTPUTS[outputs],
        "request": request,
        "response": response,
        "version": version,
        "id": f"request {number}",
    }
    for number, (aio, binary, outputs, request, response, version) in enumerate(
        product(
            (False, True),
            (False, True),
            OUTPUTS,
            (None, "gzip", "deflate"),
            (None, "gzip", "deflate"),
            ("", "3"),
        )
    )
}
KSERVE_CASES = {
    f"{'binary' if binary else 'JSON'}, outputs {outputs}, {parameters}": {
        "binary": binary,
        "outputs": OUTPUTS[outputs],
        "parameters": parameters,
        "id": f"request {number}",
    }
    for number, (binary, outputs, parameters) in enumerate(
        product((False, True), OUTPUTS, (None, {"binary_data_output": True}))
    )
}


@pytest.fixture(scope="module")
def triton(service: Service, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    asked = {"url": service.address, "model": "tiny", "version": "3", "inputs": INPUTS, "cases": TRITON_CASES}
    return ask("oip_tritonclient.py", TRITON, asked, pytestconfig, tmp_path_factory.mktemp("triton"))


@pytest.fixture(scope="module")
def kserve(service: Service, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    asked = {"url": service.address, "model": "tiny", "inputs": INPUTS, "cases": KSERVE_CASES}
    return ask("oip_kserve.py", KSERVE, asked, pytestconfig, tmp_path_factory.mktemp("kserve"))


def assert_scored(service: Service, version: str, outputs: dict[str, list[Any]], wanted: Any) -> None:
    """The answer is what the model itself says, and what the outbox holds under the answered ids."""
    assert list(outputs) == ([name for name, _ in wanted] if wanted else ALL)
    model = service.models[version]
    matrix = model.contract.encode(COLUMNS)
    scores = model.score(matrix)
    np.testing.assert_allclose(outputs["score"], scores, rtol=1e-6)
    if "predicted" in outputs:
        assert outputs["predicted"] == (scores >= model.contract.threshold).tolist()
        unknown = [kind not in (None, "centrifugal", "screw") for kind in COLUMNS["Pump type"]]
        assert outputs["outside"] == (model.contract.beyond(matrix).any(axis=1) | unknown).tolist()
    numbers = [int(each.removeprefix("bergen/")) for each in outputs["id"]]
    assert numbers == list(range(numbers[0], numbers[0] + ROWS))
    with Outbox(service.outbox) as outbox:
        kept = list(outbox.rows(numbers[0], numbers[-1]))
    assert [row.sequence for row in kept] == numbers
    assert {row.release for row in kept} == {f"sha256:{version}"}
    np.testing.assert_allclose([row.score for row in kept], outputs["score"], rtol=1e-6)


@pytest.mark.parametrize("case", TRITON_CASES)
def test_tritonclient_infers(triton: Any, service: Service, case: str):
    asked = TRITON_CASES[case]
    got = triton["aio" if asked["aio"] else "sync"]["cases"][case]
    version = asked["version"] or "4"
    assert got["head"] == {"id": asked["id"], "model_name": "tiny", "model_version": version}
    assert_scored(service, version, got["outputs"], asked["outputs"])


def test_tritonclient_has_many_requests_under_way(triton: Any):
    assert len(set(triton["sync"]["many"])) == 20


def test_tritonclient_asks_how_it_stands(triton: Any, service: Service):
    got = triton["sync"]
    assert got["live"] and got["ready"]
    assert got["models"] == {"tiny/": True, "tiny/3": True, "tiny/99": False, "none/": False}
    assert got["server"]["extensions"] == ["binary_tensor_data"]
    assert got["model"]["name"] == "tiny" and set(got["model"]["versions"]) == set(service.models)
    assert [each["name"] for each in got["model"]["outputs"]] == ALL
    aio = triton["aio"]
    assert aio["live"] and aio["ready"] and aio["model_ready"]
    assert (aio["server"], aio["model"]) == (got["server"], got["model"])


@pytest.mark.parametrize(
    ("what", "statuses", "message"),
    [
        ("version", {"404"}, "99"),
        ("model", {"404"}, "none"),
        ("output", {"400"}, "output 'label' is none of this model"),
        ("classes", {"400"}, "classification"),
        ("missing", {"400", "422"}, "'Temperature' is missing"),
        ("rows", {"400"}, "'Temperature' has 2 rows"),
        ("gzip", {"400", "422"}, "'Pressure [bar]' is missing"),
    ],
)
def test_tritonclient_is_told_why(triton: Any, what: str, statuses: set[str], message: str):
    status, said = triton["sync"]["refused"][what]
    assert status in statuses and message in said


@pytest.mark.parametrize("case", KSERVE_CASES)
def test_kserve_infers(kserve: Any, service: Service, case: str):
    got, asked = kserve["cases"][case], KSERVE_CASES[case]
    assert got["head"] == {"id": asked["id"], "model_name": "tiny"}
    assert_scored(service, "4", got["outputs"], asked["outputs"])


def test_kserve_asks_how_it_stands_and_is_told_why(kserve: Any):
    assert kserve["live"] is True and kserve["ready"] is True
    assert kserve["models"] == {"tiny": True, "none": False}
    status, said = kserve["refused"]["missing"]
    assert status in (400, 422) and "'Temperature' is missing" in said
    assert kserve["refused"]["model"][0] == 404
