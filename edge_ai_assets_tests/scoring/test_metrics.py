"""Counters: what Prometheus reads is what was counted, by all workers, the dead ones included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_ai_assets.scoring import counters
from edge_ai_assets.scoring.contract import Contract, Input
from edge_ai_assets.scoring.metrics import CODES, ROWS, SECONDS, Metrics
from edge_ai_assets_tests.tiny_model import INPUTS

CONTRACT = Contract("tiny", INPUTS, 0.5, "fault")
NONE = np.zeros(len(INPUTS), np.int64)
SITE: dict[str, Any] = {
    "site": "bergen",
    "release": "sha256:aa",
    "version": 3,
    "outbox": {"scored": 7, "uploaded": 3, "withheld": 0, "quarantined": 0, "expired": 0, "pending": 4},
    "outbox_bytes": 4096,
    "oldest_pending": 2.5,
    "disk_free": 10**12,
    "waiting": 0,
}


class Scraped(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples as Prometheus would keep them; a name may stand for one sample only."""

    def __init__(self, metrics: Metrics, **site: Any) -> None:
        super().__init__()
        self.families = {}
        for family in text_string_to_metric_families(metrics.render(**SITE | site).decode()):
            assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
            self.families[family.name] = family.type
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self, f"{key} twice"
                self[key] = sample.value

    def of(self, name: str, **labels: str) -> float:
        return self.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "counters" if request.param else None, CONTRACT)


def test_what_was_counted_is_what_is_read(metrics):
    number = metrics.routes(["feedback", "score"])
    for status in (200, 200, 429, 507, 999):
        metrics.answered(number["score"], status, 0.003)
    metrics.answered(number["feedback"], 200, 0.2)
    metrics.answered(number["other"], 404, 0.0)
    metrics.parsed(2e-6)
    metrics.scored(40, 3, 32, 1e-4)
    metrics.scored(100_001, 0, 1, 11.0)
    metrics.committed(40, 2, 3e-4)
    metrics.odd(np.array([1, 0, 0, 0]), np.array([0, 0, 5, 0]))
    metrics.connected(12)
    found = Scraped(metrics, waiting=9)
    assert found.of("edge_ai_requests_total", route="score", code="200") == 2
    assert found.of("edge_ai_requests_total", route="score", code="429") == 1
    assert found.of("edge_ai_requests_total", route="score", code="other") == 1
    assert found.of("edge_ai_requests_total", route="other", code="404") == 1
    assert found.of("edge_ai_request_seconds_count", route="score") == 5
    assert found.of("edge_ai_request_seconds_sum", route="score") == pytest.approx(0.015)
    assert found.of("edge_ai_request_seconds_bucket", route="score", le="0.0025") == 0
    assert found.of("edge_ai_request_seconds_bucket", route="score", le="0.005") == 5
    for stage, seconds in (("parse", 2e-6), ("score", 11.0001), ("commit", 3e-4)):
        assert found.of("edge_ai_stage_seconds_sum", stage=stage) == pytest.approx(seconds)
    assert found.of("edge_ai_stage_seconds_bucket", stage="score", le="10") == 1
    assert found.of("edge_ai_stage_seconds_bucket", stage="score", le="+Inf") == 2
    assert found.of("edge_ai_group_rows_sum") == 100_041 and found.of("edge_ai_group_requests_total") == 33
    assert found.of("edge_ai_group_rows_bucket", le="100000") == 1
    assert found.of("edge_ai_commit_rows_sum") == 40 and found.of("edge_ai_commit_requests_total") == 2
    assert found.of("edge_ai_rows_total") == 100_041 and found.of("edge_ai_positive_rows_total") == 3
    assert found.of("edge_ai_outside_values_total", input="Pressure [bar]") == 1
    assert found.of("edge_ai_missing_values_total", input="Pump type") == 5
    assert found.of("edge_ai_connections") == 12 and found.of("edge_ai_waiting_bytes") == 9
    assert found.of("edge_ai_release_info", site="bergen", digest="sha256:aa", version="3") == 1
    assert found.of("edge_ai_outbox_rows", state="pending") == 4
    assert found.of("edge_ai_outbox_scored_total") == 7
    assert found.of("edge_ai_outbox_oldest_pending_seconds") == 2.5
    assert found.of("edge_ai_disk_free_bytes") == 10**12


def test_a_service_that_did_nothing_yet_can_be_asked(metrics):
    metrics.routes(["score"])
    found = Scraped(metrics, oldest_pending=None)
    assert found.of("edge_ai_outbox_oldest_pending_seconds") == 0
    assert found.of("edge_ai_group_rows_count") == 0 and ("edge_ai_rows_total", frozenset()) in found


def test_what_was_counted_before_the_routes_were_known_is_kept(metrics):
    metrics.scored(5, 1, 1, 0.1)
    metrics.odd(NONE + 1, NONE)
    metrics.routes(["score"])
    metrics.scored(5, 1, 1, 0.1)
    metrics.odd(NONE + 1, NONE)
    found = Scraped(metrics)
    assert found.of("edge_ai_group_rows_sum") == 10 and found.of("edge_ai_rows_total") == 10
    assert found.of("edge_ai_outside_values_total", input="Temperature") == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_what_a_worker_uses_is_told(metrics):
    metrics.routes(["score"])
    found, me = Scraped(metrics), str(os.getpid())
    assert 10e6 < found.of("edge_ai_worker_resident_memory_bytes", worker=me) < 10e9
    assert found.of("edge_ai_worker_cpu_seconds_total", worker=me) > 0
    assert found.of("edge_ai_worker_open_fds", worker=me) >= 3
    started = found.of("edge_ai_worker_start_time_seconds", worker=me)
    assert abs(started - Path(f"/proc/{me}").stat().st_ctime) < 60


durations = st.floats(0, 100) | st.sampled_from(SECONDS)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*CODES, 418]), durations), max_size=60))
def test_buckets_are_cumulative_and_their_bounds_belong_to_them(answers):
    metrics = Metrics(None, CONTRACT)
    number = metrics.routes(["a", "b"])
    assert sorted(number.values()) == [0, 1, 2]
    for route, status, seconds in answers:
        metrics.answered(route, status, seconds)
    found = Scraped(metrics)
    for name, route in number.items():
        mine = [seconds for given, _, seconds in answers if given == route]
        for bound in SECONDS:
            expected = sum(seconds <= bound for seconds in mine)
            assert found.of("edge_ai_request_seconds_bucket", route=name, le=f"{bound:g}") == expected
        assert found.of("edge_ai_request_seconds_bucket", route=name, le="+Inf") == len(mine)
        assert found.of("edge_ai_request_seconds_count", route=name) == len(mine)
        counted = [
            v
            for (n, labels), v in found.items()
            if n == "edge_ai_requests_total" and ("route", name) in labels
        ]
        assert sum(counted) == len(mine)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5, unique=True))
def test_any_name_of_an_input_can_be_read_back(names):
    inputs = tuple(Input(name, "number", "", name) for name in names)
    metrics = Metrics(None, Contract("tiny", inputs, 0.5, "fault"))
    metrics.routes(["score"])
    metrics.odd(np.arange(1, len(names) + 1), np.zeros(len(names), np.int64))
    text = metrics.render(**SITE).decode("utf-8", "surrogatepass")
    lines = [line for line in text.split("\n") if line.startswith("edge_ai_outside_values_total{")]
    escaped = [name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for name in names]
    assert lines == [
        f'edge_ai_outside_values_total{{input="{name}"}} {i}.0' for i, name in enumerate(escaped, 1)
    ]


def test_threads_lose_no_count(metrics):
    number = metrics.routes(["score"])["score"]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def count() -> None:
        for _ in range(2_000):
            metrics.answered(number, 200, 0.5)
            metrics.scored(1, 1, 1, 0.1)
            metrics.odd(NONE + 1, NONE)

    threads = [threading.Thread(target=count) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    found = Scraped(metrics)
    assert found.of("edge_ai_requests_total", route="score", code="200") == 8_000
    assert found.of("edge_ai_request_seconds_sum", route="score") == 4_000
    assert found.of("edge_ai_rows_total") == 8_000
    assert found.of("edge_ai_outside_values_total", input="Temperature") == 8_000


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker of the site, with one input more, that has counted and lives."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from edge_ai_assets.scoring.contract import Contract, Input\n"
        "from edge_ai_assets.scoring.metrics import Metrics\n"
        "inputs = (Input('Temperature', 'number', '', 'Temperature'), Input('new', 'number', '', 'new'))\n"
        "metrics = Metrics(Path(sys.argv[1]), Contract('tiny', inputs, 0.5, 'fault'))\n"
        "number = metrics.routes(['score', 'newer'])\n"
        "metrics.answered(number['score'], 200, 0.5)\n"
        "metrics.answered(number['newer'], 200, 0.5)\n"
        "metrics.scored(10, 2, 1, 0.1)\n"
        "metrics.odd(np.array([3, 4]), np.array([0, 0]))\n"
        "metrics.connected(5)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(counters.__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_worker_speaks_for_all_and_the_dead_keep_what_they_counted(tmp_path, other):
    metrics = Metrics(tmp_path, CONTRACT)
    number = metrics.routes(["score"])
    metrics.answered(number["score"], 200, 0.5)
    metrics.scored(1, 0, 1, 0.1)
    metrics.odd(NONE + 1, NONE)
    metrics.connected(2)
    both = Scraped(metrics)
    assert both.of("edge_ai_connections") == 7
    assert ("edge_ai_worker_open_fds", frozenset({("worker", str(other.pid))})) in both
    other.send_signal(signal.SIGKILL)
    other.wait()
    one = Scraped(metrics)
    assert one.of("edge_ai_connections") == 2
    assert ("edge_ai_worker_open_fds", frozenset({("worker", str(other.pid))})) not in one
    for found in (both, one):
        assert found.of("edge_ai_requests_total", route="score", code="200") == 2
        assert found.of("edge_ai_requests_total", route="newer", code="200") == 1
        assert found.of("edge_ai_request_seconds_sum", route="score") == 1.0
        assert found.of("edge_ai_rows_total") == 11
        assert found.of("edge_ai_outside_values_total", input="Temperature") == 4
        assert found.of("edge_ai_outside_values_total", input="new") == 4


def test_counters_never_go_down(tmp_path):
    counted = 0.0
    for _ in range(5):
        metrics = Metrics(tmp_path, CONTRACT)
        metrics.routes(["score"])
        metrics.scored(3, 0, 1, 0.1)
        found = Scraped(metrics).of("edge_ai_rows_total")
        assert found == counted + 3
        counted = found


def test_files_that_are_not_ready_or_of_another_version_are_passed_over(tmp_path):
    (tmp_path / "7-ab.partial").write_bytes(b"")
    (tmp_path / "7-ab.counters-0").write_bytes(b"\x00\x01")
    metrics = Metrics(tmp_path, CONTRACT)
    metrics.routes(["score"])
    metrics.scored(3, 0, 1, 0.1)
    assert Scraped(metrics).of("edge_ai_rows_total") == 3


def test_a_file_says_itself_what_is_in_it(tmp_path):
    series = [counters.Series("a", (), 1), counters.Series("b", ("x", "ü"), 3)]
    mine = counters.Counters(series, tmp_path)
    mine.values[2] = 0.1
    (worker,) = counters.workers(tmp_path)
    assert worker == (os.getpid(), True, {("a", ()): [0.0], ("b", ("x", "ü")): [0.0, 0.1, 0.0]})


def test_the_service_does_not_load_the_client_before_it_is_asked():
    program = "import sys, edge_ai_assets.scoring.metrics; print('prometheus_client' in sys.modules)"
    root = Path(counters.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "False"


def test_bounds_rise():
    assert list(SECONDS) == sorted(set(SECONDS)) and list(ROWS) == sorted(set(ROWS))
