"""Files of other people, as they are found: folders, Excel's first line, times that count, blank labels."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from edge_ai_assets import usecase as usecases
from edge_ai_assets.cli import app
from edge_ai_assets.readings import histories
from edge_ai_assets.readings.choose import choose
from edge_ai_assets.readings.draft import draft
from edge_ai_assets.readings.files import ReadingsError, read
from edge_ai_assets.readings.replay import file_plant
from edge_ai_assets.usecase import UseCase

ROWS = 2400


def log(seed: int = 0, rows: int = ROWS, start: str = "2024-01-01") -> pd.DataFrame:
    """A machine that has faults of ten minutes every four hours."""
    rng = np.random.default_rng(seed)
    fault = np.arange(rows) % 240 >= 230
    return pd.DataFrame(
        {
            "time": pd.date_range(start, periods=rows, freq="min").astype(str),
            "flow": (rng.normal(50, 5, rows) - 20 * fault).round(2),
            "temp": rng.normal(40, 2, rows).round(2),
            "fault": fault.astype(int),
        }
    )


def save(frame: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def drafted(path: Path) -> UseCase:
    return usecases.loads(draft(path))


def readings(path: Path, usecase: UseCase) -> pd.DataFrame:
    site = None if usecase.site else usecase.sites[0].name
    return pd.concat([batch.readings for batch in read(path, usecase, site=site)], ignore_index=True)


def sites(usecase: UseCase) -> list[str]:
    return [site.name for site in usecase.sites]


# Folders.


@pytest.mark.parametrize("shape", ["{0}.csv", "{0}/log.csv", "plant/{0}/a.csv"])
def test_files_written_at_once_are_sites(tmp_path: Path, shape: str) -> None:
    data = tmp_path / "data"
    for seed, name in enumerate(("pump 1", "pump 2")):
        save(log(seed), data / shape.format(name))
    usecase = drafted(data)
    assert sites(usecase) == ["pump-1", "pump-2"]
    assert usecase.time and not usecase.site
    plant = file_plant(data, usecase, tmp_path / "out")
    assert {path.parent.name for path in plant.history} == {"pump-1", "pump-2"}
    assert [set(phase) for phase in plant.phases] == [{"pump-1", "pump-2"}] * 2
    for path in plant.history:
        assert len(readings(path, usecase)) == ROWS // 2


def test_files_that_follow_each_other_are_one_log(tmp_path: Path) -> None:
    for day in (1, 3, 5):
        save(log(day, start=f"2024-01-0{day}"), tmp_path / "data" / f"2024-01-0{day}.csv")
    usecase = drafted(tmp_path / "data")
    assert sites(usecase) == ["site-a", "site-b", "site-c"]
    plant = file_plant(tmp_path / "data", usecase, tmp_path / "out")
    last = max(pd.read_csv(path)["time"].max() for path in plant.history)
    first = min(
        pd.read_csv(path)["time"].min() for phase in plant.phases for p in phase.values() for path in p
    )
    assert last < first, "history is what came first, not the first half of each file"


def test_sites_of_all_files_of_a_folder(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        save(log(seed).assign(station=name), tmp_path / "data" / f"{name}.csv")
    assert sites(drafted(tmp_path / "data")) == ["a", "b", "c"]
    usecase, text = choose(tmp_path / "data")
    assert text is not None
    assert sites(usecase) == ["a", "b", "c"]


def test_sites_beyond_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_ai_assets.readings.profile.HEAD", 2 * ROWS)
    monkeypatch.setattr("edge_ai_assets.readings.profile.CHUNK", ROWS)
    frame = pd.concat([log(seed).assign(station=name) for seed, name in enumerate("abcd")])
    assert sites(drafted(save(frame, tmp_path / "all.csv"))) == list("abcd")


def test_columns_that_not_every_file_has_are_no_features(tmp_path: Path) -> None:
    save(log(1), tmp_path / "data" / "a.csv")
    save(log(2).drop(columns="temp"), tmp_path / "data" / "b.csv")
    assert [feature.name for feature in drafted(tmp_path / "data").features] == ["flow"]
    save(pd.DataFrame({"x": [1]}), tmp_path / "data" / "c.csv")
    with pytest.raises(ReadingsError, match="no column in common"):
        draft(tmp_path / "data")


def test_init_takes_a_folder(tmp_path: Path) -> None:
    save(log(), tmp_path / "data" / "a.csv")
    done = CliRunner().invoke(
        app, ["usecase", "init", str(tmp_path / "data"), "--out", str(tmp_path / "u.yaml")]
    )
    assert done.exit_code == 0, done.output
    assert usecases.load(tmp_path / "u.yaml").name == "data"


# History.


@pytest.mark.parametrize("order", ["by station", "newest first", "as it came"])
def test_history_is_a_share_of_each_site(tmp_path: Path, order: str) -> None:
    frame = pd.concat([log(seed).assign(station=name) for seed, name in enumerate("ab")])
    if order == "as it came":
        frame = frame.sort_values(["time", "station"])
    if order == "newest first":
        frame = frame.iloc[::-1]
    path = save(frame, tmp_path / "all.csv")
    plant = file_plant(path, drafted(path), tmp_path / "out")
    assert {path.parent.name for path in plant.history} == {"a", "b"}
    assert [set(phase) for phase in plant.phases] == [{"a", "b"}] * 2
    spans = [
        [(table["time"].min(), table["time"].max()) for table in map(pd.read_csv, paths)]
        for paths in (plant.history, *([p for ps in phase.values() for p in ps] for phase in plant.phases))
    ]
    for earlier, later in pairwise(spans):
        assert max(last for _, last in earlier) < min(first for first, _ in later)


def test_a_history_that_leaves_one_phase_only(tmp_path: Path) -> None:
    path = save(log(), tmp_path / "log.csv")
    usecase = drafted(path).model_copy(update={"history": 0.96})
    with pytest.raises(ReadingsError, match=r"history 0\.96 leaves one phase only of 40 runs"):
        file_plant(path, usecase, tmp_path / "out")


def test_a_plant_of_which_no_row_can_be_placed(tmp_path: Path) -> None:
    path = save(log(), tmp_path / "log.csv")
    time = usecases.Time(columns=("time",), format="%d.%m.%Y")
    usecase = drafted(path).model_copy(update={"time": time})
    expected = r"time 'time' is '2024-01-01 00:00:00', which is not the format '%d\.%m\.%Y' \(row 1\)"
    with pytest.raises(ReadingsError, match=expected):
        file_plant(path, usecase, tmp_path / "out")


def test_blocks_of_rows_have_names_of_their_own_in_each_part(tmp_path: Path) -> None:
    path = save(log().drop(columns="time"), tmp_path / "log.csv")
    usecase = drafted(path)
    plant = file_plant(path, usecase, tmp_path / "out")
    parts = [plant.history, *([p for ps in phase.values() for p in ps] for phase in plant.phases)]
    named = [{run for path in part for run in readings(path, usecase)["_run"]} for part in parts]
    assert all(named)
    assert not (named[0] & named[1] or named[0] & named[2] or named[1] & named[2])


def rare(*faults: slice) -> pd.DataFrame:
    frame = log().assign(fault=0)
    for part in faults:
        frame.loc[frame.index[part], "fault"] = 1
    return frame


@pytest.mark.parametrize(
    ("faults", "share", "doubted"),
    [
        ([slice(100, 140), slice(1000, 1050)], 0.5, False),
        ([slice(100, 140), slice(1600, 1640)], 0.7, False),
        ([slice(100, 140), slice(1600, 1640), slice(2350, 2390)], 0.7, False),
        ([slice(2300, 2390)], 0.5, True),
        ([slice(100, 110)], 0.5, True),
    ],
)
def test_history_reaches_as_far_as_faults_require(
    tmp_path: Path, faults: list[slice], share: float, doubted: bool
) -> None:
    text = draft(save(rare(*faults), tmp_path / "log.csv"))
    usecase = usecases.loads(text)
    assert usecase.history == share
    assert (usecase.gates.f1 == 0) == doubted
    assert ("few rows are positive" in text) == doubted


def test_history_without_runs_to_split() -> None:
    found = histories.share(np.ones(30, bool), None, pd.Series(["one"] * 30), None)
    assert found[0] == 0.5
    assert found[1]


# Times.


@pytest.mark.parametrize(
    ("unit", "form"), [(10**9, "epoch s"), (10**6, "epoch ms"), (10**3, "epoch us"), (1, "epoch ns")]
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_times_that_count_from_1970(tmp_path: Path, unit: int, form: str, ending: str) -> None:
    frame = log()
    expected = pd.to_datetime(frame["time"]).astype("datetime64[us]")
    frame["time"] = expected.astype("datetime64[ns]").astype("int64") // unit
    path = tmp_path / f"log.{ending}"
    if ending == "csv":
        save(frame, path)
    else:
        frame.to_parquet(path, index=False)
    usecase = drafted(path)
    assert usecase.time == usecases.Time(columns=("time",), format=form)
    assert (readings(path, usecase)["_time"] - expected).abs().max() < pd.Timedelta("1us")


def test_a_counted_time_that_is_none_is_rejected(tmp_path: Path) -> None:
    frame = log().astype({"time": "datetime64[s]"})
    frame["time"] = frame["time"].astype("int64").astype(str)
    frame.loc[[5, 6], "time"] = ["soon", "1" * 40]
    path = save(frame, tmp_path / "log.csv")
    rejected = pd.concat([batch.rejected for batch in read(path, drafted(path), site="site-a")])
    assert rejected["_problem"].tolist() == ["unreadable time"] * 2


@pytest.mark.parametrize("values", [range(1, ROWS + 1), np.linspace(0, 3600, ROWS)])
def test_numbers_named_time_that_do_not_count_from_1970(tmp_path: Path, values: object) -> None:
    usecase = drafted(save(log().assign(time=values), tmp_path / "log.csv"))
    assert usecase.time is None


# Labels.


@pytest.mark.parametrize("causes", [("bearing",), ("bearing", "seal"), ("bearing", "seal", "motor")])
def test_blank_may_mean_that_all_was_well(tmp_path: Path, causes: tuple[str, ...]) -> None:
    frame = log()
    frame["failure"] = np.where(frame.pop("fault") == 1, np.resize(causes, ROWS), "")
    usecase = drafted(save(frame, tmp_path / "log.csv"))
    assert usecase.label.blank == "negative"
    assert set(usecase.label.positive or ()) == set(causes)
    table = readings(tmp_path / "log.csv", usecase)
    assert table["_label"].notna().all()
    assert table["_label"].sum() == 100


def test_blank_means_nothing_where_others_say_that_all_was_well(tmp_path: Path) -> None:
    frame = log().astype({"fault": "str"})
    frame.loc[frame.index % 3 > 0, "fault"] = ""
    usecase = drafted(save(frame, tmp_path / "log.csv"))
    assert usecase.label == usecases.Label(column="fault", positive=(1,))
    assert readings(tmp_path / "log.csv", usecase)["_label"].isna().sum() == ROWS * 2 // 3


@pytest.mark.parametrize("name", ["Störung?", "Fehlercode", "Ausfall"])
def test_german_trouble(tmp_path: Path, name: str) -> None:
    frame = log().rename(columns={"fault": name}).assign(valve=lambda table: (table["flow"] > 50) * 1)
    assert drafted(save(frame, tmp_path / "log.csv")).label.column == name


# First lines.


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;  "])
def test_the_first_line_that_excel_writes(tmp_path: Path, first: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{first}\n" + log().to_csv(sep=";", index=False))
    usecase = drafted(path)
    table = readings(path, usecase)
    assert len(table) == ROWS
    plant = file_plant(path, usecase, tmp_path / "out")
    parts = [plant.history, *([p for ps in phase.values() for p in ps] for phase in plant.phases)]
    assert sum(len(readings(path, usecase)) for part in parts for path in part) == ROWS


def test_a_column_named_sep_is_a_column(tmp_path: Path) -> None:
    usecase = drafted(save(log().rename(columns={"flow": "sep=x"}), tmp_path / "log.csv"))
    assert "sep=x" in [feature.name for feature in usecase.features]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log().to_csv(path, index=False, header=False)
    with pytest.raises(ReadingsError, match="the first line holds readings"):
        draft(path)


def test_numbers_that_rise_are_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(500, 6)), columns=["400", "400.5", "401", "410", "500", "label"])
    frame["label"] = (frame["401"] > 1).astype(int)
    assert len(drafted(save(frame, tmp_path / "spectra.csv")).features) == 5


# Ranges.


def test_what_comes_down_to_zero_ends_there_and_a_temperature_does_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = log().assign(flow=rng.uniform(0, 100, ROWS), temp=rng.uniform(5, 30, ROWS))
    usecase = drafted(save(frame, tmp_path / "log.csv"))
    low = {feature.name: feature.range[0] for feature in usecase.numbers if feature.range}
    assert low["flow"] == 0
    assert low["temp"] < 0
