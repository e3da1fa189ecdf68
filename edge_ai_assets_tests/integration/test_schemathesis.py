"""The service does what its own document says: schemathesis reads it, and calls some thousand times.

More than 10,000 take seven minutes: SCHEMATHESIS_CASES=10000 pytest -m integration -k undocumented

It is installed into an environment of its own below pytest's cache: what it needs is not ours.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from edge_ai_assets.scoring.tokens import add
from edge_ai_assets_tests.integration.test_oip_clients import python_with
from edge_ai_assets_tests.tiny_model import tiny_release

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CHECKOUT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = "schemathesis==4.32.5"
CASES = int(os.environ.get("SCHEMATHESIS_CASES", "400"))
EXAMPLES = max(CASES * 3 // 20, 100)
"""A path at most; those that take nothing need few."""
LEFT_OUT = "positive_data_acceptance"
"""No schema can say that columns have one length, or that a body is compressed as its header says."""

SETTINGS = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 431]
"""
"""Of a request that the document does not allow: schemathesis by itself would not think of 413."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a service that asks for tokens, and one with every role."""
    tiny_release(tmp_path / "release")
    token = add(tmp_path / "tokens.json", "schemathesis", ["score", "feedback", "operate"])
    ready, tell = os.pipe()
    command = [sys.executable, "-m", "edge_ai_assets.scoring.serve", "--site", "bergen", "--version", "3"]
    command += ["--release", str(tmp_path / "release"), "--outbox", str(tmp_path / "outbox.db")]
    command += ["--tokens", str(tmp_path / "tokens.json"), "--port", "0", "--ready-fd", str(tell)]
    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        process = subprocess.Popen(command, env=environment, pass_fds=(tell,), stderr=log)
    os.close(tell)
    with os.fdopen(ready) as line:
        assert line.readline() == "ready\n", (tmp_path / "log").read_text()
    found = re.search(r'"127\.0\.0\.1", (\d+)', (tmp_path / "log").read_text())
    assert found
    address = f"http://127.0.0.1:{found[1]}"
    row = {"Pressure [bar]": 2.0, "Temperature": 10.0, "Pump type": None}
    head = {"authorization": f"Bearer {token}"}
    scored = httpx.post(f"{address}/v1/score", json={"records": [row]}, headers=head)
    assert scored.json()["results"][0]["id"] == "bergen/1"  # so that there is something to give feedback on
    yield address, token
    process.terminate()
    assert process.wait(60) == 0
    assert '"level": "error"' not in (tmp_path / "log").read_text()


def test_no_answer_is_undocumented(service, tmp_path, request):
    address, token = service
    values = {"Pressure [bar]": [10.0, 11.0], "Temperature": [45.0, None], "Pump type": ["screw", None]}
    with pa.OSFile(str(tmp_path / "good.arrow"), "wb") as file:
        stream = pa.table(values)
        with pa.ipc.new_stream(file, stream.schema) as writer:
            writer.write_table(stream)
    cache = getattr(request.config, "cache", None)
    python = python_with(SCHEMATHESIS, cache.mkdir("clients") if cache else tmp_path)
    command = [python.with_name("schemathesis"), "run", f"{address}/openapi.json", "--checks", "all"]
    command += ["--exclude-checks", LEFT_OUT, "--phases", "coverage,fuzzing", "--continue-on-failure"]
    command += ["--max-examples", str(EXAMPLES), "--no-shrink", "--header", f"Authorization: Bearer {token}"]
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        "EXAMPLE_ARROW": str(tmp_path / "good.arrow"),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    made = re.search(r"(\d+) generated", done.stdout)
    assert made and int(made[1]) >= CASES, done.stdout[-1000:]
