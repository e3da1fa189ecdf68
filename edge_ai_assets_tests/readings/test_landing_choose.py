"""The landing zone, where each file is taken once; and which use case somebody's own readings belong to."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from edge_ai_assets.readings import landing, simulator
from edge_ai_assets.readings.choose import choose
from edge_ai_assets.readings.landing import ingest_all, waiting
from edge_ai_assets.readings.raw import ReadingsError

HEADER = "site,run,time,T [°C],mode,fault"
GOOD = ["N,r1,2026-01-01T00:00:00,1,eco,0", "N,r1,2026-01-01T00:00:01,2,full,1"]


@pytest.fixture
def zone(tmp_path):
    def put(name, *lines, header=HEADER):
        path = tmp_path / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *lines]) + "\n" if header else "")
        return path

    put.root, put.lake = tmp_path / "landing", tmp_path / "lake"
    return put


def left(zone):
    return sorted(path.relative_to(zone.root).as_posix() for path in zone.root.rglob("*") if path.is_file())


def test_an_empty_landing_zone_is_fine(mill, zone):
    landed = ingest_all(zone.root, mill(), zone.lake)
    assert (landed.rows, landed.rejected, landed.lake_rows, landed.reasons) == (0, 0, 0, {})


def test_files_are_taken_once_and_keep_their_folder(mill, zone):
    zone("a.csv", *GOOD)
    zone("north/b.csv", GOOD[0], "N,r1,x,1,eco,0", "N,r1,2026-01-01T00:00:02,999,eco,0")
    landed = ingest_all(zone.root, mill(), zone.lake)
    assert (landed.rows, landed.rejected, landed.lake_rows) == (3, 2, 3)
    assert sum(landed.reasons.values()) == 2 and len(landed.reasons) == 2
    assert left(zone) == ["taken/a.csv", "taken/north/b.csv"] and waiting(zone.root) == []
    again = ingest_all(zone.root, mill(), zone.lake)
    assert again.files == [] and again.lake_rows == 3


def test_the_same_content_again_adds_nothing(mill, zone):
    zone("a.csv", *GOOD)
    ingest_all(zone.root, mill(), zone.lake)
    zone("other name.csv", *GOOD)
    landed = ingest_all(zone.root, mill(), zone.lake)
    assert landed.lake_rows == 2 and not landed.files[0].new


def test_killed_before_it_is_moved_a_file_is_taken_again_and_changes_nothing(mill, zone, monkeypatch):
    zone("a.csv", *GOOD)
    with monkeypatch.context() as patched:
        patched.setattr(landing, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest_all(zone.root, mill(), zone.lake)
    assert [path.name for path in waiting(zone.root)] == ["a.csv"]
    assert ingest_all(zone.root, mill(), zone.lake).lake_rows == 2 and left(zone) == ["taken/a.csv"]


@pytest.mark.parametrize(
    ("header", "said"),
    [(None, "empty"), (HEADER, "no rows"), (HEADER.replace("mode", "mood"), "'mode' is missing")],
)
def test_what_cannot_be_read_is_set_aside_and_the_rest_is_taken(mill, zone, header, said):
    zone("a.csv", *([] if header in (None, HEADER) else GOOD), header=header)
    zone("b.csv", *GOOD)
    landed = ingest_all(zone.root, mill(), zone.lake)
    ((name, reason),) = landed.unreadable
    assert name == "a.csv" and said in reason and landed.rows == 2
    assert left(zone) == ["taken/b.csv", "unreadable/a.csv"]


def test_a_file_of_a_name_that_was_there_before_does_not_take_its_place(mill, zone):
    for value in (1, 2, 3):
        zone("day.csv", f"N,r1,2026-01-01T00:00:0{value},{value},eco,0")
        ingest_all(zone.root, mill(), zone.lake)
    assert left(zone) == ["taken/day.csv", "taken/day.csv.1", "taken/day.csv.2"]
    texts = {(zone.root / name).read_text().splitlines()[1][-7:] for name in left(zone)}
    assert texts == {"1,eco,0", "2,eco,0", "3,eco,0"}


@pytest.mark.parametrize("name", [".a.csv", ".copying/a.csv", "north/.tmp/deep/a.csv"])
def test_what_is_being_written_does_not_wait(mill, zone, name):
    zone(name, *GOOD)
    assert waiting(zone.root) == []
    assert ingest_all(zone.root, mill(), zone.lake).files == [] and left(zone) == [name]


def test_without_a_site_column_the_folder_is_the_site(mill, zone):
    case = mill(("site: {column: site}\n", ""))
    header = HEADER.removeprefix("site,")
    for folder in ("north", "N", "south", "elsewhere"):
        zone(f"{folder}/a.csv", "r1,2026-01-01T00:00:00,1,eco,0", header=header)
    landed = ingest_all(zone.root, case, zone.lake)
    frames = [pd.read_parquet(path) for path in (zone.lake / "raw_telemetry").iterdir()]
    assert sorted(pd.concat(frames)["_site"]) == ["north", "north", "south"]
    assert "elsewhere" in landed.unreadable[0][1]


MILLION = """
import resource, sys
from pathlib import Path
from edge_ai_assets import usecase
from edge_ai_assets.readings.landing import ingest_all
root = Path(sys.argv[1])
case = usecase.load(root / "mill.yaml")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
landed = ingest_all(root / "landing", case, root / "lake")
print(landed.rows, landed.rejected, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_file_of_a_million_rows_is_taken_in_bounded_memory(zone):
    rows = ["r,1.5,0", "r,2.5,1", "r,3.5,0", "r,broken,0"] * 250_000
    zone("north/large.csv", *rows, header="run,Flow,fault")
    (zone.root.parent / "mill.yaml").write_text(
        "name: mill\nruns: {column: run}\nfeatures: [{name: Flow}]\n"
        "label: {column: fault, positive: [1]}\nsites: [{name: north}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(zone.root.parent)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    good, bad, megabytes = map(int, done.stdout.split())
    assert (good, bad) == (750_000, 250_000) and megabytes < 250


def test_readings_with_the_columns_of_a_bundled_use_case_get_it(tmp_path):
    frame = simulator.simulate("bergen", seed=1, shifts=1).assign(station="bergen")
    frame.to_csv(tmp_path / "mine.csv", index=False)
    case, drafted = choose(tmp_path)
    assert (case.name, drafted) == ("pump-station", None)


def test_other_readings_get_a_draft_that_can_be_used(tmp_path):
    rows = [
        f"{hour % 24:02}:00 2026-01-{1 + hour // 24:02},{hour % 7},{int(hour % 50 == 0)}"
        for hour in range(400)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["when,Flow [m³/h],failure", *rows]))
    case, drafted = choose(tmp_path / "mine.csv")
    assert drafted is not None and "Flow [m³/h]" in drafted
    assert case.label.column == "failure" and [f.name for f in case.features] == ["Flow [m³/h]"]


@pytest.mark.parametrize("name", [None, "notes.md", "empty.csv"])
def test_nothing_to_read_is_said_so(tmp_path, name):
    if name:
        (tmp_path / name).write_text("")
    with pytest.raises(ReadingsError):
        choose(tmp_path)
