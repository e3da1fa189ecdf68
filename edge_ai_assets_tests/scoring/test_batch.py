"""Files of readings through a scoring service: every row once, however cut, killed or sent again."""

from __future__ import annotations

import gzip
import json
import weakref
from dataclasses import astuple
from itertools import pairwise

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.home import SiteHome
from edge_ai_assets.readings.raw import ReadingsError
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.scoring import batch, lookback, supervisor
from edge_ai_assets.scoring.batch import FileScored, score_file
from edge_ai_assets.scoring.client import Client, ScoreAnswer, ServiceError
from edge_ai_assets.scoring.http import MAX_BODY
from edge_ai_assets.scoring.slices import Chunk, Cut, Slice, tables
from edge_ai_assets_tests import blocks
from edge_ai_assets_tests.tiny_model import tiny_release

CASE = usecases.loads("""
name: mill
time: {columns: [time]}
runs: {column: run}
features:
  - {name: Flow, range: [0, 100]}
  - {name: Mode, kind: category, categories: [eco, full]}
label: {column: fault, positive: [1]}
windows: {rows: [3], statistics: [mean, max], baseline_rows: 2}
sites: [{name: north}]
""")
ROWS = [
    f"r{row // 20},2026-01-0{1 + row // 20}T00:00:{row % 20:02},{(row * 7) % 50},{('eco', 'full')[row % 2]},"
    for row in range(60)
]


EMPTY = b'{"inputs":{},"context":{}}'
TABLE = next(tables(pd.DataFrame({"Flow": [1.0], "Mode": "eco", "_time": pd.NaT}), 1))[2]


class Service:
    """Answers as the scoring service does: once for each key, and then always the same."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.answers: dict[str, ScoreAnswer] = {}
        self.sent: dict[str, str] = {}
        self.rows: list[dict[str, object]] = []
        self.asked: list[str] = []
        self.fails_after = fails_after

    def score_table(self, table, *, key):
        self.asked.append(key)
        if self.fails_after is not None and len(self.asked) > self.fails_after:
            raise ServiceError("no answer")
        found = pa.ipc.open_stream(table).read_all().to_pylist()
        for row in found:
            row["_time"] = row["_time"] and row["_time"].isoformat()
        if self.sent.setdefault(key, str(found)) != str(found):
            raise ServiceError("Idempotency-Key was used before, for other records", 422)
        if key not in self.answers:
            answer = ScoreAnswer(
                *("r1", "", 0.5, f"north/{len(self.rows) + 1}", [0.5] * len(found)),
                predicted=[row["Flow"] is not None and row["Flow"] > 25 for row in found],
                outside=[row["Mode"] == "full" for row in found],
            )
            self.rows += found
            self.answers[key] = answer
        return self.answers[key]


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch):
    monkeypatch.setattr(batch, "IN_FLIGHT", 1)


@pytest.fixture
def site(tmp_path):
    made = SiteHome(tmp_path / "north")
    made.readings.mkdir(parents=True)
    return made


def deliver(site, lines, name="a.csv", header="run,time,Flow,Mode,fault"):
    path = site.readings / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def score(site, service, path, usecase=CASE):
    return score_file(path, usecase=usecase, site=site, client=service)


def interrupt(site, service, path, after=1):
    """Begin to score a file; the service goes away when it has answered `after` slices."""
    service.fails_after = after
    with pytest.raises(ServiceError, match="no answer"):
        score(site, service, path)
    service.fails_after = None


def features_of(service):
    """Everything scored, by run and row; NaN as a text, since it is not equal to itself."""
    return {(row["_run"], row["_row"]): str(row) for row in service.rows}


def scored_in_pieces(site, cuts, lines=ROWS):
    service, edges = Service(), [0, *sorted(cuts), len(lines)]
    total = FileScored(0, 0, 0, 0, 0)
    for number, (start, end) in enumerate(pairwise(edges)):
        if start < end:
            one = score(site, service, deliver(site, lines[start:end], f"{number:02}.csv"))
            total = FileScored(*(a + b for a, b in zip(astuple(total), astuple(one), strict=True)))
    return service, total


@given(cuts=st.sets(st.integers(1, 59), min_size=1, max_size=4))
@settings(max_examples=6, deadline=None)
def test_cut_into_files_anywhere_the_features_are_those_of_one_file(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("sites")
    sites = [SiteHome(folder / name / "north") for name in ("whole", "cut")]
    for site in sites:
        site.readings.mkdir(parents=True)
    (whole, all_of_it), (cut, summed) = (
        scored_in_pieces(site, at) for site, at in zip(sites, ([], cuts), strict=True)
    )
    assert features_of(whole) == features_of(cut)
    assert all_of_it == summed and len(whole.rows) == len(cut.rows) == 60 - 3 * 2


def test_runs_that_take_turns_are_told_apart(site):
    mixed = [line for pair in zip(ROWS[:20], ROWS[20:40], strict=True) for line in pair]
    service, _ = scored_in_pieces(site, [7, 8, 23], mixed)
    assert set(features_of(service)) == {(f"r{run}", row) for run in (0, 1) for row in range(2, 20)}


def test_every_row_is_scored_rejected_or_of_the_baseline(site):
    broken = [ROWS[0].replace(",0,", ",-1,"), "r1,no time,1,eco,", "r1,2026-01-01", "", ROWS[5]]
    done = score(site, service := Service(), deliver(site, [*ROWS, *broken]))
    assert done.scored + done.rejected + done.baseline == 64  # a blank line is no row
    assert (done.rejected, done.baseline) == (4, 6) and done.scored == len(service.rows)
    assert done.anomalies == sum(row["Flow"] > 25 for row in service.rows)
    assert done.outside == sum(row["Mode"] == "full" for row in service.rows)
    kept = pd.concat([pd.read_parquet(path) for path in site.rejected.iterdir()])
    assert sorted(kept["_line"]) == [62, 63, 64, 66] and kept["_file"].eq("a.csv").all()


def test_why_rows_of_a_file_were_rejected_is_counted_by_reason(site, tmp_path):
    service = Service()
    score(site, service, deliver(site, ["r1,another file,1,eco,"]))
    rows = ["run,time,Flow,Mode,fault", "r1,x,1,eco,", "r1,y,1,eco,", "r1,2026-01-01"]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    copy = batch.hidden_copy(tmp_path / "mine.csv", site)
    done = score(site, service, copy)
    found = batch.why_rejected(copy, site)
    assert done.rejected == found.total() == 3 and len(found) >= 2


def test_a_file_of_broken_rows_only_is_dealt_with(site):
    assert astuple(score(site, service := Service(), deliver(site, ["r1,x,1,eco,", "r1,y,1,eco,"])))[:2] == (
        0,
        2,
    )
    assert score(site, service, deliver(site, ROWS, "b.csv")).scored == 54
    assert not batch.waiting(site)


def test_a_file_delivered_twice_is_scored_once_whatever_came_between(site):
    service = Service()
    for name, lines in (("a.csv", ROWS[:20]), ("b.csv", ROWS[20:]), ("again.csv", ROWS[:20])):
        done = score(site, service, deliver(site, lines, name))
    assert astuple(done) == (0, 0, 0, 0, 0)
    assert len(service.rows) == 54 and not batch.waiting(site)


def test_killed_between_remembering_and_moving_nothing_is_scored_again(site, monkeypatch):
    service, path = Service(), deliver(site, ROWS[:30])
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(site, service, path)
    asked = len(service.asked)
    assert score(site, service, path).scored == 0 and len(service.asked) == asked
    score(site, service, deliver(site, ROWS[30:], "b.csv"))
    assert {key[1] for key in features_of(service) if key[0] == "r1"} == set(range(2, 20))


def test_killed_before_moving_it_is_moved_though_another_file_comes_first(site, monkeypatch):
    service, path = Service(), deliver(site, ROWS[:30], "m.csv")
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(site, service, path)
    score(site, service, deliver(site, ROWS[30:], "a.csv"))
    assert not batch.waiting(site) and len(features_of(service)) == len(service.rows) == 54


@pytest.mark.parametrize("hidden", [False, True])
def test_an_interrupted_file_is_finished_before_any_other(site, monkeypatch, hidden, tmp_path):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    service, path = Service(), deliver(site, ROWS[:30], "m.csv")
    if hidden:
        path = batch.hidden_copy(path.rename(tmp_path / "m.csv"), site)
    interrupt(site, service, path)
    assert batch.interrupted(site) == path
    score(site, service, deliver(site, ROWS[30:], "a.csv"))  # goes on with the run that m.csv ends in
    assert not path.exists() and batch.interrupted(site) is None and not site.scoring.exists()
    at = SiteHome(tmp_path / "other" / "north")
    at.readings.mkdir(parents=True)
    assert features_of(service) == features_of(scored_in_pieces(at, [30])[0])
    assert len(service.rows) == 54


def test_a_file_begun_before_notes_told_the_cut_is_finished_under_the_keys_of_that_time(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(first=7, chunk=7, slice=3))
    service, path = Service(), deliver(site, ROWS)
    note = {"file": path.name, "digest": batch._digest(path), "usecase": CASE.model_dump(mode="json")}
    site.scoring.write_text(json.dumps(note))
    assert score(site, service, path).scored == 54
    assert service.asked == [f"{note['digest']}/0/0"]


def test_an_interrupted_file_is_finished_as_it_was_cut_when_it_was_begun(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(first=7, chunk=21, slice=10))
    service, path = Service(), deliver(site, ROWS)
    interrupt(site, service, path, after=3)
    monkeypatch.setattr(batch, "CUT", Cut(first=5, chunk=30, slice=9))
    assert score(site, service, path).scored == 54 == len(service.rows)


def test_slices_cut_otherwise_have_other_keys():
    keys = {cut.key("d", 1, 10) for cut in (Cut(), batch.CUT, Cut(first=5), Cut(chunk=5), Cut(slice=5))}
    assert len(keys) == 5


def test_a_file_that_a_release_with_other_inputs_overtook_says_what_became_of_its_rows(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    service, path = Service(), deliver(site, ROWS)
    interrupt(site, service, path, after=2)
    with Outbox(site.outbox) as outbox:
        for key, answer in service.answers.items():
            rows = len(answer.scores)
            outbox.append([blocks.batch([EMPTY] * rows, [0.5] * rows, [False] * rows, key=key)])
        outbox.append([blocks.batch([EMPTY], [0.5], [False], key="another request")])
    narrow = CASE.model_copy(update={"features": CASE.features[:1]})

    def refuse(*_, **__):
        raise ServiceError("field 'Mode' is not an input of this model", 422)

    monkeypatch.setattr(service, "score_table", refuse)
    with pytest.raises(
        ReadingsError, match=r"a\.csv was begun under another .* 20 rows .* 'Mode' is not"
    ) as found:
        score(site, service, path, narrow)
    assert batch.refused(found.value)
    with pytest.raises(ServiceError):  # by its own use case it is the file, or the service
        score(site, service, path)


def test_an_interrupted_file_is_finished_by_the_use_case_it_was_begun_with(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    wider = CASE.model_copy(update={"windows": CASE.windows.model_copy(update={"rows": (5,)})})
    service, path = Service(), deliver(site, ROWS)
    interrupt(site, service, path)
    assert score(site, service, path, wider).scored == 54
    assert all("Flow [mean 3]" in row for row in service.rows)
    score(site, service, deliver(site, [line.replace("r0", "s") for line in ROWS[:9]], "b.csv"), wider)
    assert "Flow [mean 5]" in service.rows[-1]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_note_whose_file_is_gone_is_dropped(site, monkeypatch, replaced):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    service, path = Service(), deliver(site, ROWS[:30])
    interrupt(site, service, path)
    path.unlink()
    if replaced:
        deliver(site, ROWS[30:], path.name)
    assert batch.interrupted(site) is None
    assert score(site, service, deliver(site, ROWS[30:], path.name)).scored == 26
    assert not site.scoring.exists()


def test_an_interrupted_file_that_is_then_refused_is_set_aside_and_blocks_nobody(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    service, path = Service(), deliver(site, ROWS[:30], "m.csv")
    interrupt(site, service, path)
    service.sent = dict.fromkeys(service.sent, "other records")
    assert score(site, service, deliver(site, ROWS[30:], "a.csv")).scored > 0
    reason = site.readings / "unreadable" / "m.csv.reason.txt"
    assert "Idempotency-Key" in reason.read_text() and not batch.waiting(site)


def test_a_file_that_somebody_else_scored_meanwhile_is_no_error(site):
    path = deliver(site, ROWS)
    path.unlink()
    assert astuple(score(site, Service(), path)) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ReadingsError("empty"), True),
        *[(ServiceError("no", status), True) for status in (400, 410, 413, 422)],
        *[(ServiceError("no", status), False) for status in (None, 408, 429, 500, 503)],
        (ValueError("a bug"), False),
    ],
)
def test_what_trying_again_cannot_change(error, refused):
    assert batch.refused(error) is refused


@pytest.mark.parametrize("answered", range(4))
def test_a_service_that_goes_away_leaves_the_file_and_no_row_is_scored_twice(site, monkeypatch, answered):
    monkeypatch.setattr(batch, "CUT", Cut(slice=10))
    path, service = deliver(site, ROWS), Service(fails_after=answered)
    with pytest.raises(ServiceError):
        score(site, service, path)
    assert batch.waiting(site) == [path] and not site.lookback.exists()
    service.fails_after = None
    assert score(site, service, path).scored == 54 == len(service.rows)
    assert len(features_of(service)) == 54


def test_keys_are_of_the_content_and_the_place_in_it(site, tmp_path):
    asked = []
    for name in ("first", "second"):
        at = SiteHome(tmp_path / name / "north")
        at.readings.mkdir(parents=True)
        score(at, service := Service(), deliver(at, ROWS, f"{name}.csv"))
        asked.append(service.asked)
    assert asked[0] == asked[1] and len(set(asked[0])) == len(asked[0]) > 0


def test_progress_is_told_in_rows(site, monkeypatch):
    monkeypatch.setattr(batch, "CUT", Cut(slice=25))
    told: list[int] = []
    score_file(deliver(site, ROWS), usecase=CASE, site=site, client=Service(), progress=told.append)
    assert told == [25, 25, 4]


def test_chunks_of_a_large_file_change_nothing(site, tmp_path, monkeypatch):
    whole, _ = scored_in_pieces(site, [])
    monkeypatch.setattr(batch, "CUT", Cut(first=3, chunk=7))
    at = SiteHome(tmp_path / "chunks" / "north")
    at.readings.mkdir(parents=True)
    cut, total = scored_in_pieces(at, [])
    assert features_of(cut) == features_of(whole) and total.scored == 54


def test_few_chunks_are_in_memory_however_long_the_file_is():
    alive, most = 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def made():
        nonlocal alive, most
        for number in range(30):
            chunk = Chunk([Slice(f"{number}", 1, TABLE)], 0, pd.DataFrame())
            alive += 1
            most = max(most, alive)
            weakref.finalize(chunk, gone)
            yield chunk
            del chunk

    assert batch._send(made(), Service(), lambda rows: None).scored == 30
    assert 1 <= most <= 4


@given(
    st.lists(st.sampled_from([None, 1.5, -0.0, 3e38]), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_slices_hold_the_rows_in_order_and_what_is_no_number_or_time_is_null(values, most):
    frame = pd.DataFrame(
        {"Flow": values, "_run": [f"r{row}" for row in range(len(values))], "_time": pd.NaT}, index=values
    ).astype({"Flow": "float64", "_run": "str", "_time": "datetime64[us]"})
    cut = list(tables(frame, most))
    assert [(start, rows) for start, rows, _ in cut] == [
        (start, min(most, len(values) - start)) for start in range(0, len(values), most)
    ]
    found = [row for *_, table in cut for row in pa.ipc.open_stream(table).read_all().to_pylist()]
    assert found == [{"Flow": value, "_run": f"r{row}", "_time": None} for row, value in enumerate(values)]


def test_what_is_kept_for_later_is_bounded(site, monkeypatch):
    monkeypatch.setattr(lookback, "OPEN_RUNS", 3)
    service = Service()
    for run in range(5):
        lines = [f"run {run:02},2026-02-{1 + run:02}T00:00:{row:02},1,eco," for row in range(50)]
        score(site, service, deliver(site, lines, f"{run:02}.csv"))
    kept = lookback.Lookback(site.lookback)
    assert sorted(kept.rows["_run"].unique()) == ["run 02", "run 03", "run 04"]
    assert len(kept.rows) == lookback.OPEN_RUNS * (2 + 3)  # baseline and longest window
    assert not list(site.root.glob(".lookback*"))


def test_a_run_that_was_let_go_is_numbered_on_and_shows_no_new_baseline(site, monkeypatch):
    monkeypatch.setattr(lookback, "OPEN_RUNS", 1)
    service = Service()
    for name, lines in (("a", ROWS[:10]), ("b", ROWS[20:40]), ("c", ROWS[10:20]), ("d", ROWS[40:])):
        score(site, service, deliver(site, lines, f"{name}.csv"))
    assert set(features_of(service)) == {(f"r{run}", row) for run in range(3) for row in range(2, 20)}
    again = [row for row in service.rows if row["_run"] == "r0" and row["_row"] >= 10]
    assert len(again) == 10 and all(row["Flow [from baseline]"] is None for row in again)


def test_how_far_runs_were_let_go_is_remembered_for_the_newest(site, monkeypatch):
    monkeypatch.setattr(lookback, "OPEN_RUNS", 1)
    monkeypatch.setattr(lookback, "KNOWN_RUNS", 2)
    service = Service()
    for run in range(5):
        lines = [f"run {run},2026-02-0{1 + run}T00:00:{row:02},1,eco," for row in range(9)]
        score(site, service, deliver(site, lines, f"{run}.csv"))
    assert lookback.Lookback(site.lookback).let_go == {"run 2": 9, "run 3": 9}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"run,time,Flow,Mode,fault\n", "no rows"),
        (b"run,time,Mode,fault\nr,2026-01-01,eco,\n", "'Flow' is missing"),
        (b"PAR1 but not really", "a.csv"),
        (gzip.compress(b"run,time,Flow,Mode,fault\n" + b"r,2026-01-01,1,eco,\n" * 1000)[:-20], "a.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_so_and_stays(site, content, said):
    path = site.readings / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ReadingsError, match=said):
        score(site, Service(), path)
    assert batch.waiting(site) == [path] and not site.lookback.exists()


def test_hidden_files_and_folders_do_not_wait(site):
    deliver(site, ROWS, ".half.csv")
    (site.readings / "unreadable").mkdir()
    assert batch.waiting(site) == []
    assert batch.waiting(SiteHome(site.root / "nowhere")) == []


def test_a_hidden_copy_is_scored_and_the_original_stays(site, tmp_path):
    (tmp_path / "mine.csv").write_text("\n".join(["run,time,Flow,Mode,fault", *ROWS]))
    copy = batch.hidden_copy(tmp_path / "mine.csv", site)
    assert batch.waiting(site) == [] and score(site, Service(), copy).scored == 54
    assert [path.name[17:] for path in site.scored.iterdir()] == ["mine.csv"]
    assert (tmp_path / "mine.csv").exists() and not copy.exists()


def test_hidden_copies_of_different_files_with_one_name_do_not_mix(site, tmp_path):
    copies = []
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "mine.csv").write_text(f"{number}")
        copies.append(batch.hidden_copy(tmp_path / f"{number}" / "mine.csv", site))
    assert [copy.read_text() for copy in copies] == ["0", "1"]
    assert batch.hidden_copy(tmp_path / "1" / "mine.csv", site) == copies[1]
    assert sorted(site.readings.iterdir()) == sorted(copies) and batch.waiting(site) == []


def test_through_a_real_service_into_the_outbox(site, tmp_path):
    from edge_ai_assets.ml import features

    inputs = features.inputs(CASE)
    release = tiny_release(tmp_path / "release", inputs=inputs, weights=[0.2] + [0.0] * (len(inputs) - 1))
    try:
        service = supervisor.deploy(site.root, site="north", release_id="sha256:1", version=1, path=release)
        with Client(service.url or "") as client:
            done = score(site, client, path := deliver(site, ROWS))
            deliver(site, ROWS)
            assert score(site, client, path).scored == 0
        with Outbox(site.outbox) as outbox:
            rows = outbox.rows(1, 100)
    finally:
        supervisor.stop(site.root)
    assert len(rows) == done.scored == 54 and done.baseline == 6
    assert sum(row.predicted for row in rows) == done.anomalies > 0


def test_the_plant_asset_comes_with_each_score(site):
    header = "run,time,Flow,Mode,fault,pump"
    case = CASE.model_copy(update={"plant_asset": usecases.PlantAsset(column="pump")})
    service = Service()
    lines = [f"{line},{('P-1', 'P-2', '')[row // 20]}" for row, line in enumerate(ROWS)]
    score(site, service, deliver(site, lines, header=header), case)
    assert {row["_run"]: row["_asset"] for row in service.rows} == {"r0": "P-1", "r1": "P-2", "r2": None}
    # Later files of the same run, with the word and without it.
    for number, usecase in enumerate((case, CASE)):
        later = [f"r0,2026-02-0{1 + number}T00:00:00,3,eco,,P-1"]
        score(site, service, deliver(site, later, f"{number}.csv", header), usecase)
    assert [row.get("_asset", "no column") for row in service.rows[-2:]] == ["P-1", "no column"]


def test_wide_rows_go_in_requests_that_the_service_takes(site):
    """2,000 rows of 2,160 inputs are 35 MB: refused by the service, for which a file is set aside."""
    names = [f"s{number}" for number in range(240)]
    case = usecases.loads(
        "name: wide\nruns: {rows: 5000}\nlabel: {column: fault, positive: [1]}\nsites: [{name: north}]\n"
        "windows: {rows: [2, 3], statistics: [mean, std, min, max]}\n"
        f"features: [{', '.join(f'{{name: {name}}}' for name in names)}]\n"
    )

    class Sizes:
        def __init__(self):
            self.largest, self.rows = 0, 0

        def score_table(self, table, *, key):
            self.largest = max(self.largest, len(table))
            rows = pa.ipc.open_stream(table).read_all().num_rows
            self.rows += rows
            return ScoreAnswer("r1", "", 0.5, "north/1", [0.5] * rows, [False] * rows, [False] * rows)

    path = site.readings / "wide.csv"
    line = ",".join(["1.5"] * 240) + ",0\n"
    path.write_text(",".join([*names, "fault"]) + "\n" + line * 2000)
    service = Sizes()
    assert score(site, service, path, case).scored == service.rows == 2000
    assert service.largest < MAX_BODY
