"""What feeds the demo: history and phases, along whole runs, with every raw row in exactly one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings.files import ReadingsError, read
from edge_ai_assets.readings.ingest import ingest
from edge_ai_assets.readings.replay import Plant, file_plant, simulated_plant
from edge_ai_assets.usecase import UseCase

Mill = Callable[..., UseCase]
Csv = Callable[..., Path]
DIRT = [
    "",
    "no,row",
    "X,r0,2024-01-01,1,eco,0",
    "N,r0,never,1,eco,0",
    'N,"r0,2024-01-01,1,eco,0',
    "N,r0,,#VALUE!,eco,0",
]


def rows(runs: int, each: int = 4, sites: tuple[str, ...] = ("N", "south")) -> list[str]:
    return [
        f"{sites[run % len(sites)]},r{run},2024-01-{1 + run:02} 00:00:{row:02},{row},eco,{row % 2}"
        for run in range(runs)
        for row in range(each)
    ]


def parts(plant: Plant) -> list[list[Path]]:
    return [plant.history, *([path for paths in phase.values() for path in paths] for phase in plant.phases)]


def lines(paths: list[Path]) -> list[str]:
    return [line for path in paths for line in path.read_text("utf-8").splitlines()[1:]]


def runs(paths: list[Path]) -> set[str]:
    return {line.split(",")[1] for line in lines(paths)}


def test_every_raw_row_is_in_exactly_one_part(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    content = rows(20)
    for position, line in enumerate(DIRT):
        content.insert(position * 9, line)
    plant = file_plant(csv(content), mill(), tmp_path / "out")
    everything = [line for part in parts(plant) for line in lines(part)]
    assert Counter(everything) == Counter(line for line in content if line)
    assert not plant.simulated


def test_runs_are_never_cut(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    plant = file_plant(csv(rows(20)), mill(), tmp_path / "out")
    history, first, second = map(runs, parts(plant))
    assert not history & first
    assert not history & second
    assert not first & second
    assert history == {f"r{run}" for run in range(10)}
    # The later runs 10 … 19 are dealt to two sites by their column; a quarter of five, rounded, is one each.
    assert first == {"r10", "r11"}


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.6, 3), (1.0, 5)])
def test_the_first_phase_has_a_share_of_each_sites_runs(
    mill: Mill, csv: Csv, tmp_path: Path, share: float, expected: int
) -> None:
    plant = file_plant(csv(rows(20)), mill(), tmp_path / "out", first_share=share)
    assert {site: len(runs(paths)) for site, paths in plant.phases[0].items()} == {
        "north": expected,
        "south": expected,
    }


def test_history_by_time(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase = mill(("name: mill", 'history: "2024-01-06T00:00:02"\nname: mill'))
    plant = file_plant(csv(rows(20)), usecase, tmp_path / "out")
    assert runs(plant.history) == {f"r{run}" for run in range(6)}, (
        "r5 begins before and goes on after the cut"
    )
    assert len(lines(plant.history)) == 24


def test_history_by_share_keeps_the_run_that_it_cuts_whole(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase = mill(("name: mill", "history: 0.26\nname: mill"))
    plant = file_plant(csv(rows(10)), usecase, tmp_path / "out")
    assert runs(plant.history) == {"r0", "r1", "r2", "r3"}, "two of each site's five"


def test_without_a_site_runs_are_dealt_in_turn(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase = mill(("site: {column: site}", ""))
    plant = file_plant(csv(rows(20)), usecase, tmp_path / "out")
    assert {path.parent.name for path in plant.history} == {"north", "south"}
    assert {site: len(runs(paths)) for site, paths in plant.phases[1].items()} == {"north": 4, "south": 4}
    for paths in [*plant.phases[0].values(), plant.history]:
        assert sum(ingest(path, usecase, tmp_path / "lake").rows for path in paths) > 0


def test_a_folder_may_name_the_site(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase = mill(("site: {column: site}", ""))
    for folder in ("data/N", "data/south"):
        (tmp_path / folder).mkdir(parents=True)
        csv(rows(8), name=f"{folder}/log.csv")
    plant = file_plant(tmp_path / "data", usecase, tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out/history")) for path in plant.history) == [
        "north/N-log.csv",
        "south/south-log.csv",
    ]
    assert len(lines(plant.history)) == 32


def test_a_run_that_goes_on_in_another_file_stays_whole(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    content = rows(12)
    csv(content[:22], name="data/1.csv")
    csv(content[22:], name="data/2.csv")
    plant = file_plant(tmp_path / "data", mill(), tmp_path / "out")
    sets = [runs(part) for part in parts(plant)]
    assert not any(one & two for one in sets for two in sets if one is not two)


def test_delimiter_quotes_and_encoding_stay(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase = mill(("time: {c", 'source: {decimal: ",", encoding: latin-1}\ntime: {c'))
    content = [line.replace(",", ";").replace("eco", '"eco"') for line in rows(8)]
    path = csv(content, "site;run;time;T [°C];mode;fault", encoding="latin-1")
    plant = file_plant(path, usecase, tmp_path / "out")
    assert plant.history[0].read_text("latin-1").splitlines()[:2] == [
        "site;run;time;T [°C];mode;fault",
        content[0],
    ]
    assert all(batch.rejected.empty for batch in read(plant.history[0], usecase))


def test_parquet_is_replayed_as_csv(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    frame = pd.read_csv(csv(rows(8)), parse_dates=["time"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").field("time").type != "string"
    plant = file_plant(tmp_path / "a.parquet", mill(), tmp_path / "out")
    got = [batch for part in parts(plant) for path in part for batch in read(path, mill())]
    assert sum(len(batch.readings) for batch in got) == 32


@pytest.mark.parametrize("unit", ["every: 1d", "rows: 10"])
def test_other_kinds_of_runs(mill: Mill, csv: Csv, tmp_path: Path, unit: str) -> None:
    usecase = mill(("column: run", unit))
    plant = file_plant(csv(rows(20, each=10)), usecase, tmp_path / "out")
    sets = [runs(part) for part in parts(plant)]
    assert not any(one & two for one in sets for two in sets if one is not two)
    assert all(sets)


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("0.0", "no history"),
        ("1.0", "nothing to replay"),
        ('"2030-01-01"', "nothing to replay"),
        ('"1999-01-01"', "no history"),
        ("soon", "neither a share"),
        ("7.5", "neither a share"),
    ],
)
def test_a_history_that_leaves_nothing(
    mill: Mill, csv: Csv, tmp_path: Path, history: str, words: str
) -> None:
    with pytest.raises(ReadingsError, match=words):
        file_plant(csv(rows(8)), mill(("name: mill", f"history: {history}\nname: mill")), tmp_path / "out")


def test_no_files_and_a_missing_column(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for data in (tmp_path / "none", tmp_path / "nowhere"):
        with pytest.raises(ReadingsError, match="no file"):
            file_plant(data, mill(), tmp_path / "out")
    with pytest.raises(ReadingsError, match="'time' is missing"):
        file_plant(csv(["N"], "site"), mill(), tmp_path / "out")


def test_again_gives_the_same(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    path = csv(rows(20))
    plants = [file_plant(path, mill(), tmp_path / "out") for _ in range(2)]
    assert plants[0] == plants[1]
    assert sum(len(lines(part)) for part in parts(plants[1])) == 80


def test_the_simulated_plant(tmp_path: Path) -> None:
    usecase = usecases.load(usecases.BUNDLED / "pump-station.yaml")
    plant = simulated_plant(usecase, tmp_path / "a")
    again = simulated_plant(usecase, tmp_path / "b")
    assert plant.simulated
    assert len(plant.history) == len(usecase.sites)
    assert [set(phase) for phase in plant.phases] == [{site.name for site in usecase.sites}] * 3
    for one, two in zip(chain(*parts(plant)), chain(*parts(again)), strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert "simulated" in one.name
    shifts = [{tuple(line.split(",")[:2]) for line in lines(part)} for part in parts(plant)]
    assert [len(part) for part in shifts] == [120, 18, 36, 36]
    results = [ingest(path, usecase, tmp_path / "lake") for path in plant.history]
    assert all(0.003 < result.rejected / result.rows < 0.02 for result in results)


def test_skab(public_data: Path, tmp_path: Path) -> None:
    usecase = usecases.load(usecases.BUNDLED / "skab.yaml")
    plant = file_plant(public_data / "skab" / "skab_shared.csv.gz", usecase, tmp_path)
    assert runs(plant.history) == {"anomaly-free", *(f"other/{run}" for run in (5, 7, 9, 11, 13))}
    assert all(",2020-02-08 " in line for line in lines(plant.history))
    assert runs(plant.phases[0]["rig-valve1"]) == {f"valve1/{run}" for run in range(4)}
    assert runs(plant.phases[1]["rig-valve1"]) == {f"valve1/{run}" for run in range(4, 16)}
    assert sum(len(lines(part)) for part in parts(plant)) == 34949


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(list(range(24))),
    share=st.floats(0.05, 0.9),
    unit=st.sampled_from(["column: run", "every: 1d", "rows: 10"]),
    sites=st.booleans(),
)
def test_no_row_is_lost_or_doubled_in_any_order(
    order: list[int], share: float, unit: str, sites: bool
) -> None:
    import tempfile

    text = f"""
name: mill
history: {share}
time: {{columns: [time]}}
{"site: {column: site}" if sites else ""}
runs: {{{unit}}}
features: [{{name: "T [°C]"}}]
label: {{column: fault, positive: [1]}}
sites: [{{name: N}}, {{name: south}}, {{name: west}}]
"""
    content = [rows(6)[position] for position in order] + DIRT[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("\n".join(["site,run,time,T [°C],mode,fault", *content]) + "\n", "utf-8")
        try:
            plant = file_plant(path, usecases.loads(text), Path(folder) / "out")
        except ReadingsError as error:
            assert "leaves" in str(error)
            return
        assert Counter(line for part in parts(plant) for line in lines(part)) == Counter(content)
