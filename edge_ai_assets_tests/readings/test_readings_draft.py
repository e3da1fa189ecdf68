"""Drafting a use case: whatever the file, the result loads, reads its own file, and says what to check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import lookalikes
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings import profile
from edge_ai_assets.readings.draft import draft
from edge_ai_assets.readings.files import ReadingsError, read
from edge_ai_assets.usecase import Ring, UseCase

PUBLIC = (
    "skab/skab_shared.csv.gz",
    "elec2/elec2.csv.gz",
    "nab/ambient_temperature_system_failure.csv.gz",
    "nab/machine_temperature_system_failure.csv.gz",
    "ai4i2020/ai4i2020.csv.gz",
)


def drafted(path: Path) -> tuple[UseCase, str, pd.DataFrame]:
    """The use case, its YAML, and the readings of its own file, of which fewer than 5 % were rejected."""
    text = draft(path)
    usecase = usecases.loads(text)
    batches = list(read(path, usecase, site=None if usecase.site else usecase.sites[0].name))
    table = pd.concat([batch.readings for batch in batches], ignore_index=True)
    rejected = sum(len(batch.rejected) for batch in batches)
    assert rejected < 0.05 * (len(table) + rejected), batches[0].rejected["_reason"].head().tolist()
    return usecase, text, table


def names(usecase: UseCase) -> list[str]:
    return [feature.name for feature in usecase.features]


@pytest.mark.parametrize("name", lookalikes.ALL)
def test_the_draft_of_a_dirty_file_is_usable(tmp_path: Path, name: str) -> None:
    usecase, text, table = drafted(lookalikes.ALL[name](tmp_path / name))
    assert 0 < table["_label"].mean() <= 0.5
    assert usecase.windows.rows == ((12,) if usecase.time else ())
    assert {field.name for field in usecase.egress.fields} > set(names(usecase))
    assert all(line.strip() for line in text.split("CHECK:")[1:])
    assert max(map(len, text.splitlines())) < 200
    if usecase.site is None:
        assert [site.ring for site in usecase.sites] == [Ring.CANARY, Ring.EARLY, Ring.BROAD]
    if usecase.runs.every:
        sizes = table.groupby(["_site", "_run"]).size()
        assert (sizes >= 20).sum() >= 20 or len(sizes) >= 10


@pytest.mark.parametrize("name", PUBLIC)
def test_the_draft_of_a_public_data_set_is_usable(public_data: Path, name: str) -> None:
    usecase, _, table = drafted(public_data / name)
    assert table.groupby(["_site", "_run"]).ngroups >= 20
    assert usecase.label.positive in ((1,), ("UP",))


def test_air_quality(tmp_path: Path) -> None:
    usecase, text, table = drafted(lookalikes.air_quality(tmp_path / "air.csv"))
    assert (usecase.source.delimiter, usecase.source.decimal, usecase.source.missing) == (";", ",", (-200,))
    assert usecase.time
    assert (usecase.time.columns, usecase.time.format) == (("Date", "Time"), "%d/%m/%Y %H.%M.%S")
    assert usecase.label.above is not None
    assert "# CHECK" in text.split("label:")[0].splitlines()[-1]
    assert table["NMHC(GT)"].isna().sum() > 1000
    assert table["T"].min() >= 0
    assert table["_time"].diff().dropna().unique().tolist() == [pd.Timedelta(hours=1)]


def test_household_power(tmp_path: Path) -> None:
    usecase, _, table = drafted(lookalikes.household_power(tmp_path / "power.txt"))
    assert usecase.source.missing == ("?",)
    assert usecase.time
    assert usecase.time.format == "%d/%m/%Y %H:%M:%S"
    assert table["_time"].min() == pd.Timestamp("2006-12-16 17:24")
    assert 0 < table["Voltage"].isna().mean() < 0.05


def test_beijing(tmp_path: Path) -> None:
    usecase, text, _ = drafted(lookalikes.beijing(tmp_path / "beijing.csv"))
    assert usecase.time
    assert usecase.time.columns == ("year", "month", "day", "hour")
    assert usecase.feature("cbwd").categories == ("NE", "NW", "SE", "cv")
    assert "No" not in names(usecase)
    assert usecase.label.column == "pm2.5"
    assert 'left out: "Is": it is always 0' in text


def test_names_units_and_sites(tmp_path: Path) -> None:
    usecase, _, table = drafted(lookalikes.bracketed(tmp_path / "b.tsv"))
    assert names(usecase) == ["Flow: main [m³/h]", 'Temp, "inner" (°C)', "{x} #1"]
    assert [feature.unit for feature in usecase.features] == ["m³/h", "°C", ""]
    assert [(site.name, site.value) for site in usecase.sites] == [
        ("press-1", "press/1"),
        ("press-2", "press/2"),
    ]
    assert usecase.label.positive == ("yes",)
    assert table["_time"].max() < pd.Timestamp("2024-04-01"), "month and day are not mixed up"


def test_a_status_of_three_values(tmp_path: Path) -> None:
    usecase, text, _ = drafted(lookalikes.machine_status(tmp_path / "p.csv"))
    assert set(usecase.label.positive or ()) == {"RECOVERING", "BROKEN"}
    assert "'NORMAL'" in text
    assert names(usecase) == ["sensor_00", "sensor_50"]


def test_parquet(tmp_path: Path) -> None:
    usecase, _, table = drafted(lookalikes.turbines(tmp_path / "t.parquet"))
    assert usecase.label.column == "is_fault"
    assert [site.name for site in usecase.sites] == ["10", "21", "38"]
    assert table["_time"].min() == pd.Timestamp("2022-08-03 22:00")


def test_another_encoding_without_time(tmp_path: Path) -> None:
    usecase, _, _ = drafted(lookalikes.no_times(tmp_path / "w.csv"))
    assert (usecase.source.encoding, usecase.time, usecase.runs.rows) == ("cp1252", None, 20)
    assert names(usecase)[0] == "Temp [°C]"


def test_skab(public_data: Path) -> None:
    usecase, text, _ = drafted(public_data / PUBLIC[0])
    bundled = usecases.load(usecases.BUNDLED / "skab.yaml")
    assert names(usecase) == names(bundled)
    assert (usecase.label, usecase.runs, usecase.site, usecase.time) == (
        bundled.label,
        bundled.runs,
        bundled.site,
        bundled.time,
    )
    assert 'left out: "fault"' in text
    assert 'left out: "changepoint"' in text


def test_flags_that_give_the_label_away_are_left_out(public_data: Path) -> None:
    usecase, _, _ = drafted(public_data / PUBLIC[4])
    assert usecase.label.column == "Machine failure"
    assert not {"TWF", "HDF", "PWF", "OSF", "RNF", "UDI", "Product ID"} & set(names(usecase))
    assert usecase.feature("Air temperature [K]").unit == "K"


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV with two sensors and what is given."""

    def write(**columns: object) -> Path:
        rng = np.random.default_rng(0)
        count = 600
        sensors = {"p": rng.normal(5, 1, count).round(3), "q": rng.normal(0, 1, count).round(3)}
        path = tmp_path / "table.csv"
        pd.DataFrame({**sensors, **columns}).to_csv(path, index=False)
        return path

    return write


RARE = [int(row % 10 == 0) for row in range(600)]


@pytest.mark.parametrize(
    "name", ["label", "is anomaly", "Fault", "failure", "target", "class", "y", "Status", "ALARM"]
)
def test_label_names(table: Callable[..., Path], name: str) -> None:
    usecase, text, _ = drafted(table(**{name: RARE, "valve": [row % 2 for row in range(600)]}))
    assert (usecase.label.column, usecase.label.positive) == (name, (1,))
    assert "valve" in names(usecase)
    assert "CHECK" not in text.split("What is predicted")[1].split("label:")[0]


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([1 - value for value in RARE], 0),
        ([-1 if value else 1 for value in RARE], -1),
        (["bad" if value else "good" for value in RARE], "bad"),
        ([bool(value) for value in RARE], "True"),
        ([2 if value else 1 for value in RARE], 2),
    ],
)
def test_the_rarer_value_is_positive(
    table: Callable[..., Path], values: list[object], positive: object
) -> None:
    usecase, _, readings = drafted(table(target=values))
    assert usecase.label.positive == (positive,)
    assert readings["_label"].sum() == 60


def test_a_frequent_fault_is_a_fault(table: Callable[..., Path]) -> None:
    usecase, _, _ = drafted(table(fault=[1 - value for value in RARE]))
    assert usecase.label.positive == (1,)


def test_an_unnamed_binary_column_is_to_be_checked(table: Callable[..., Path]) -> None:
    usecase, text, _ = drafted(table(zz=RARE))
    assert usecase.label.column == "zz"
    assert "# CHECK: no column is named like a label" in text


def test_one_class_only(table: Callable[..., Path]) -> None:
    usecase, text, _ = drafted(table(anomaly=[0] * 600))
    assert usecase.label.positive == (1,)
    assert "one value only" in text


def test_sentinels_only_when_they_stand_out(table: Callable[..., Path]) -> None:
    off = np.where(np.arange(600) % 20 == 0, -999.0, 5.5)
    off[:2] = [4.0, 7.0]
    real = np.linspace(-240, -150, 600).round(1)
    real[[250, 260]] = -200.0
    usecase, _, readings = drafted(table(off=off, real=real, y=RARE))
    assert usecase.source.missing == (-999,)
    assert readings["off"].isna().sum() == 29
    assert readings["real"].notna().all()


def test_times_that_repeat_are_told_apart_or_given_up(table: Callable[..., Path]) -> None:
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(600) // 3, "h")
    which = [f"press {row % 3}" for row in range(600)]
    usecase, text, _ = drafted(table(when=stamps, press=which, y=RARE))
    assert usecase.site
    assert usecase.site.column == "press"
    assert "is it the site?" in text
    usecase, text, _ = drafted(table(when=stamps, y=RARE))
    assert usecase.time is None
    assert "file order" in text


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
        ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"),
        ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S"),
        ("%Y%m%d%H%M%S", "%Y%m%d%H%M%S"),
        ("%d-%b-%Y %H:%M:%S", "%d-%b-%Y %H:%M:%S"),
        ("%Y/%m/%d %H:%M", None),
        ("%Y-%m-%dT%H:%M:%SZ", None),
    ],
)
def test_formats_of_times(table: Callable[..., Path], form: str, expected: str | None) -> None:
    stamps = pd.date_range("2024-02-11", periods=600, freq="h")
    usecase, _, readings = drafted(table(timestamp=stamps.strftime(form), y=RARE))
    assert usecase.time
    assert usecase.time.format == expected
    assert readings["_time"].tolist() == stamps.tolist()


def test_a_file_that_is_longer_than_what_is_looked_at(
    table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "HEAD", 100)
    path = table(grows=np.arange(600) ** 2, kind=["a"] * 100 + ["b"] * 400 + ["c"] * 100, y=RARE)
    text = path.read_text()
    path.write_text(text.replace(",a,", ",a,", 1))
    monkeypatch.setattr(profile, "CHUNK", 100)
    usecase, _, _ = drafted(path)
    top = usecase.feature("grows").range
    assert top
    assert top[1] > 599**2


def test_ranges_of_extreme_numbers(table: Callable[..., Path]) -> None:
    numbers = {"huge": np.linspace(-1, 1, 600) * 1e300, "tiny": np.linspace(-1, 1, 600) * 1e-300}
    drafted(table(**numbers, close=1e15 + np.arange(600) * 7.0, y=RARE))


COLUMNS = {
    "sensor": lambda rng: rng.normal(size=100),
    "digit": lambda rng: rng.integers(0, 5, 100),
    "binary": lambda rng: rng.integers(0, 2, 100),
    "word": lambda rng: rng.choice(["u", "v", "w"], 100),
    "empty": lambda rng: [None] * 100,
    "time": lambda rng: pd.date_range("2024-01-01", periods=100, freq="h").astype(str),
    "key": lambda rng: [f"id{row}" for row in range(100)],
    "constant": lambda rng: [5] * 100,
}
NAMES = ["a", "b [K]", "y", "label", "site", "id", "time", "run", "x:y", "date", "_z", "status"]


@settings(max_examples=15, deadline=None)
@given(
    columns=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t"),
    seed=st.integers(0, 1000),
)
def test_any_table_is_drafted_or_refused_by_name(columns: dict[str, str], delimiter: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        frame = pd.DataFrame({name: COLUMNS[kind](rng) for name, kind in columns.items()})
        frame.to_csv(path, index=False, sep=delimiter)
        try:
            draft(path)
        except ReadingsError as error:
            assert str(path) in str(error)
            return
        drafted(path)


@pytest.mark.parametrize("content", ["", "a,b\n", "a\n1\n2\n"])
def test_files_without_a_use_case(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(ReadingsError):
        draft(path)
