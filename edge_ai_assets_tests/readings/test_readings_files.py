"""Reading files: what becomes a reading, what is rejected and why, and that nothing is ever dropped."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings.files import Batch, ReadingsError, read
from edge_ai_assets.usecase import UseCase

GOOD = "N,r1,2024-01-01 00:00:00,20.5,eco,0"
Mill = Callable[..., UseCase]
Csv = Callable[..., Path]


def whole(path: Path, usecase: UseCase, **options: object) -> Batch:
    batches = list(read(path, usecase, **options))  # type: ignore[arg-type]
    return Batch(
        pd.concat([b.readings for b in batches], ignore_index=True),
        pd.concat([b.rejected for b in batches], ignore_index=True),
    )


def one(line: str, path: Csv, usecase: UseCase) -> pd.Series:
    """The row of a file with one row, which must be a reading."""
    batch = whole(path([line]), usecase)
    assert batch.rejected.empty, batch.rejected["_reason"].tolist()
    return batch.readings.iloc[0]


def test_the_canonical_table(mill: Mill, csv: Csv) -> None:
    table = whole(csv([GOOD, "south,r7,2024-01-01T00:00:10Z,-3,full,1"]), mill()).readings
    assert list(table) == ["_site", "_run", "_row", "_time", "T [°C]", "mode", "_label"]
    assert table.dtypes.astype(str).tolist() == [
        "str",
        "str",
        "int64",
        "datetime64[us]",
        "float64",
        "str",
        "boolean",
    ]
    assert table["_site"].tolist() == ["north", "south"]
    assert table["_label"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("line", "problem", "words"),
    [
        ("N,r1,2024-01-01,500,eco,0", "out of range", ["'T [°C]'", "500", "-50", "200", "°C"]),
        ("N,r1,2024-01-01,-50.01,eco,0", "out of range", ["-50.01"]),
        ("N,r1,2024-01-01,#VALUE!,eco,0", "not a number", ["'T [°C]'", "#VALUE!"]),
        ("N,r1,2024-01-01,0x10,eco,0", "not a number", ["0x10"]),
        ("N,r1,2024-01-01,1_000,eco,0", "not a number", ["1_000"]),
        ("N,r1,2024-01-01,inf,eco,0", "not a number", ["inf"]),
        ("N,r1,2024-01-01,1e999,eco,0", "not finite", ["infinite"]),
        ('N,r1,2024-01-01,"20,5",eco,0', "not a number", ["20,5"]),
        ("N,r1,2024-01-01,20,turbo,0", "unknown category", ["'mode'", "turbo", "'eco', 'full'"]),
        ("X,r1,2024-01-01,20,eco,0", "unknown site", ["'site'", "'X'", "'south'"]),
        (",r1,2024-01-01,20,eco,0", "site missing", ["'site'"]),
        ("N,,2024-01-01,20,eco,0", "run missing", ["'run'"]),
        (f"N,{'r' * 201},2024-01-01,20,eco,0", "run too long", ["'run'", "201", "200"]),
        ("N,r1,,20,eco,0", "time missing", ["'time'"]),
        ("N,r1,2024-13-01,20,eco,0", "unreadable time", ["2024-13-01", "ISO 8601"]),
        ("N,r1,now,20,eco,0", "unreadable time", ["'now'"]),
        ("N,r1,today,20,eco,0", "unreadable time", ["'today'"]),
        ("N,r1,2024-01-01,20,eco,maybe", "unreadable label", ["'fault'", "maybe"]),
        ("N,r1,2024-01-01,20,eco", "broken line", ["5 fields", "6"]),
        ("N,r1,2024-01-01,20,eco,0,9", "broken line", ["7 fields", "6"]),
        ('N,r1,2024-01-01,20,"eco,0', "broken line", ["cannot be cut"]),
        (",,,,,", "empty row", ["empty"]),
    ],
)
def test_a_broken_row_is_rejected_with_its_reason(
    mill: Mill, csv: Csv, line: str, problem: str, words: list[str]
) -> None:
    batch = whole(csv([GOOD, line, "N,r1,2024-01-02,20,eco,0"]), mill())
    assert len(batch.readings) == 2
    (row,) = batch.rejected.to_dict("records")
    assert (row["_file"], row["_line"], row["_problem"]) == ("mill.csv", 3, problem)
    assert all(word in row["_reason"] for word in words), row["_reason"]
    json.loads(row["_row_text"])


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *[("1e1", 10.0), ("+7", 7.0), (" 7 ", 7.0), (".5", 0.5), ("5.", 5.0), ("-50", -50.0), ("200", 200.0)],
        *[(empty, np.nan) for empty in ("", " ", "NA", "nan", "NaN", "null", "N/A", "None")],
    ],
)
def test_numbers_and_missing_ones(mill: Mill, csv: Csv, cell: str, value: float) -> None:
    assert one(f"N,r1,2024-01-01,{cell},eco,0", csv, mill())["T [°C]"] == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("cell", "fits"), [("3.4e38", True), ("-3.4e38", True), ("3.5e38", False), ("-1e99", False)]
)
def test_without_a_range_a_number_must_fit_what_the_model_computes_with(
    mill: Mill, csv: Csv, cell: str, fits: bool
) -> None:
    batch = whole(csv([f"N,r1,2024-01-01,{cell},eco,0"]), mill((", range: [-50, 200]", "")))
    assert len(batch.readings) == fits
    if not fits:
        (row,) = batch.rejected.to_dict("records")
        assert row["_problem"] == "too large" and "'T [°C]'" in row["_reason"] and "3.4" in row["_reason"]


def test_a_run_name_of_200_characters_is_one(mill: Mill, csv: Csv) -> None:
    assert one(f"N,{'ü' * 200},2024-01-01,1,eco,0", csv, mill())["_run"] == "ü" * 200


@pytest.mark.parametrize("cell", ["-200", "-200.0", "-2e2", "?", "n.v."])
def test_sentinels_are_missing_before_they_are_out_of_range(mill: Mill, csv: Csv, cell: str) -> None:
    usecase = mill(("time: {c", 'source: {missing: [-200, "?", n.v.]}\ntime: {c'))
    assert np.isnan(one(f"N,r1,2024-01-01,{cell},eco,0", csv, usecase)["T [°C]"])


def test_a_sentinel_for_the_category_and_the_label(mill: Mill, csv: Csv) -> None:
    row = one("N,r1,2024-01-01,1,?,?", csv, mill(("time: {c", 'source: {missing: ["?"]}\ntime: {c')))
    assert pd.isna(row["mode"])
    assert row["_label"] is pd.NA


@pytest.mark.parametrize("cell", ["NA", "None"])
def test_a_declared_category_wins_over_missing(mill: Mill, csv: Csv, cell: str) -> None:
    assert one(f"N,r1,2024-01-01,1,{cell},0", csv, mill(("eco, full", f"eco, {cell}")))["mode"] == cell


@pytest.mark.parametrize(
    ("rule", "cell", "expected"),
    [
        *[("positive: [1]", cell, True) for cell in ("1", "1.0", "true", "TRUE", " 1 ", "1e0")],
        *[("positive: [1]", cell, False) for cell in ("0", "0.0", "2", "false")],
        *[("positive: [true]", cell, True) for cell in ("True", "1")],
        *[("positive: [UP]", cell, True) for cell in ("UP", "up")],
        *[("positive: [UP]", cell, False) for cell in ("DOWN", "0")],
        *[("positive: ['1']", cell, True) for cell in ("1", "1.0")],
        *[("positive: [a, b]", cell, cell == "b") for cell in ("b", "c")],
        *[("above: 2.5", cell, cell == "2.6") for cell in ("2.6", "2.5", "-1")],
        *[(rule, "", pd.NA) for rule in ("positive: [1]", "positive: [UP]", "above: 2")],
        *[(rule, "#VALUE!", None) for rule in ("positive: [1]", "positive: [UP]", "above: 2")],
        ("above: 2", "high", None),
    ],
)
def test_labels(mill: Mill, csv: Csv, rule: str, cell: str, expected: object) -> None:
    """None means that the row is rejected."""
    batch = whole(csv([f"N,r1,2024-01-01,1,eco,{cell}"]), mill(("positive: [1]", rule)))
    if expected is None:
        assert batch.rejected["_problem"].tolist() == ["unreadable label"]
    elif expected is pd.NA:
        assert batch.readings["_label"].isna().all()
    else:
        assert batch.readings["_label"].tolist() == [expected]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-01-01T12:00:00+02:00", "2024-01-01T10:00:00"),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00"),
        ("2024-01-01 12:00:00.123456", "2024-01-01T12:00:00.123456"),
        ("2024-01-01", "2024-01-01T00:00:00"),
    ],
)
def test_times_become_naive_utc(mill: Mill, csv: Csv, cell: str, expected: str) -> None:
    assert one(f"N,r1,{cell},1,eco,0", csv, mill())["_time"] == pd.Timestamp(expected)


def test_a_time_in_several_columns(mill: Mill, csv: Csv) -> None:
    usecase = mill(("{columns: [time]}", '{columns: [y, m, d, h], format: "%Y %m %d %H"}'))
    path = csv(["N,r,2010,1,2,0,1,eco,0", "N,r,2010,1,,0,1,eco,0"], "site,run,y,m,d,h,T [°C],mode,fault")
    batch = whole(path, usecase)
    assert batch.readings["_time"].tolist() == [pd.Timestamp("2010-01-02")]
    assert batch.rejected["_problem"].tolist() == ["time missing"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_found_out(mill: Mill, tmp_path: Path, delimiter: str, ending: str) -> None:
    path = tmp_path / "a.csv"
    lines = ["site,run,time,T [°C],mode,fault", GOOD, GOOD.replace("r1", "r2")]
    path.write_bytes(ending.join(line.replace(",", delimiter) for line in lines).encode("utf-8-sig"))
    assert len(whole(path, mill()).readings) == 2


def test_decimal_commas_do_not_look_like_delimiters(mill: Mill, csv: Csv) -> None:
    usecase = mill(("time: {c", 'source: {decimal: ","}\ntime: {c'))
    path = csv(
        [f"N;r1;2024-01-0{day};20,{day};eco;0" for day in range(1, 9)], "site;run;time;T [°C];mode;fault"
    )
    assert whole(path, usecase).readings["T [°C]"].tolist() == [
        pytest.approx(20 + day / 10) for day in range(1, 9)
    ]


def test_empty_columns_and_blank_lines_at_the_end(mill: Mill, csv: Csv) -> None:
    path = csv([GOOD + ",,", "", "   ", GOOD.replace("r1", "r2")], "site,run,time,T [°C],mode,fault,,")
    batch = whole(path, mill())
    assert (len(batch.readings), len(batch.rejected)) == (2, 0)


def test_quotes_and_a_stray_one_costs_one_row(mill: Mill, csv: Csv) -> None:
    lines = [GOOD.replace("r1", f'"r,{row}"') for row in range(5)]
    lines[2] = GOOD.replace("r1", '"r2')
    batch = whole(csv(lines), mill())
    assert batch.readings["_run"].tolist() == ["r,0", "r,1", "r,3", "r,4"]
    assert batch.rejected["_line"].tolist() == [4]


def test_duplicates_are_by_site_run_and_time(mill: Mill, csv: Csv) -> None:
    lines = [GOOD, GOOD.replace("r1", "r2"), GOOD.replace("N,", "south,"), GOOD.replace("20.5", "99"), GOOD]
    batch = whole(csv(lines), mill())
    assert len(batch.readings) == 3
    assert batch.rejected["_line"].tolist() == [5, 6]
    assert "2024-01-01" in batch.rejected["_reason"][0]


@pytest.mark.parametrize(
    ("cell", "asset"), [("P-1", "P-1"), (" P-1 ", "P-1"), ("", None), ("n/a", None), ("x" * 200, "x" * 200)]
)
def test_a_column_names_the_plant_asset(mill: Mill, csv: Csv, cell: str, asset: str | None) -> None:
    usecase = mill(("runs:", "plant_asset: {column: pump}\nruns:"))
    header = "pump,site,run,time,T [°C],mode,fault"
    table = whole(csv([f"{cell},{GOOD}", f"P-2,{GOOD.replace('r1', 'r2')}"], header=header), usecase).readings
    assert list(table)[:5] == ["_site", "_run", "_row", "_time", "_asset"]
    assert [None if pd.isna(found) else found for found in table["_asset"]] == [asset, "P-2"]


def test_a_plant_asset_that_no_score_may_carry_costs_its_row(mill: Mill, csv: Csv) -> None:
    usecase = mill(("runs:", "plant_asset: {column: pump}\nruns:"))
    header = "pump,site,run,time,T [°C],mode,fault"
    (row,) = whole(csv([f"{'x' * 201},{GOOD}"], header=header), usecase).rejected.to_dict("records")
    assert row["_reason"] == "plant asset 'pump' has 201 characters, it may have 200"
    with pytest.raises(ReadingsError, match="column 'pump' is missing"):
        whole(csv([GOOD]), usecase)


def test_without_a_run_column_duplicates_are_by_site_and_time(mill: Mill, csv: Csv) -> None:
    lines = [GOOD, GOOD.replace("r1", "r2"), GOOD.replace("N,", "south,")]
    for runs in ("every: 1d", "rows: 10"):
        assert len(whole(csv(lines), mill(("column: run", runs))).readings) == 2


def test_a_broken_row_does_not_make_the_good_one_a_duplicate(mill: Mill, csv: Csv) -> None:
    batch = whole(csv([GOOD.replace("20.5", "999"), GOOD]), mill())
    assert batch.readings["T [°C]"].tolist() == [20.5]


@pytest.mark.parametrize("chunk_rows", [2, 7])
def test_chunks_change_nothing(mill: Mill, csv: Csv, chunk_rows: int) -> None:
    rng = np.random.default_rng(3)
    lines = [
        f"{site},r{rng.integers(3)},2024-01-01 00:00:{rng.integers(10):02},{row},eco,0"
        for row, site in enumerate(rng.choice(["N", "south", "X"], 30))
    ]
    for runs in ("column: run", "every: 10s", "rows: 10"):
        usecase = mill(("column: run", runs))
        expected, got = whole(csv(lines), usecase), whole(csv(lines), usecase, chunk_rows=chunk_rows)
        pd.testing.assert_frame_equal(got.readings, expected.readings)
        pd.testing.assert_frame_equal(got.rejected, expected.rejected)


@pytest.mark.parametrize(("ending", "sizes"), [("csv", [4, 8, 16, 20, 2]), ("parquet", [4, 8, 8, 20, 10])])
def test_the_first_chunk_may_be_small_and_each_further_one_twice_as_long(
    mill: Mill, csv: Csv, tmp_path: Path, ending: str, sizes: list[int]
) -> None:
    """In Parquet each also ends where the most that may be read at once does."""
    path = csv([GOOD.replace("r1", f"r{row}") for row in range(50)])
    if ending == "parquet":
        pd.read_csv(path).to_parquet(path := tmp_path / "a.parquet")
    batches = list(read(path, mill(), chunk_rows=20, first_rows=4))
    assert [len(batch.readings) for batch in batches] == sizes
    pd.testing.assert_frame_equal(
        pd.concat([batch.readings for batch in batches], ignore_index=True), whole(path, mill()).readings
    )


def test_positions_count_within_a_run_in_file_order(mill: Mill, csv: Csv) -> None:
    lines = [f"N,r{row % 2},2024-01-01 00:00:{59 - row:02},1,eco,0" for row in range(10)]
    table = whole(csv(lines), mill(), chunk_rows=3).readings
    assert table["_row"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert table["_time"].is_monotonic_decreasing


def test_runs_of_a_period(mill: Mill, csv: Csv) -> None:
    lines = [f"N,x,2024-01-01 {hour:02}:30:00,1,eco,0" for hour in range(24)]
    table = whole(csv(lines), mill(("column: run", "every: 6h"))).readings
    assert table["_run"].unique().tolist() == [f"2024-01-01T{hour:02}:00:00" for hour in (0, 6, 12, 18)]


def test_runs_of_so_many_rows_within_a_site(mill: Mill, csv: Csv) -> None:
    lines = [f"{'N' if row % 2 else 'south'},x,2024-01-01 00:00:{row:02},1,eco,0" for row in range(50)]
    table = whole(csv(lines, name="a.b.csv"), mill(("column: run", "rows: 10")), chunk_rows=7).readings
    sizes = table.groupby(["_site", "_run"]).size()
    assert sizes["north"].to_dict() == {"a.b-00000": 10, "a.b-00001": 10, "a.b-00002": 5}


def test_without_time_the_order_is_the_files(mill: Mill, csv: Csv) -> None:
    batch = whole(csv([GOOD, GOOD]), mill(("time: {columns: [time]}", "")))
    assert batch.readings["_time"].isna().all()
    assert batch.readings["_row"].tolist() == [0, 1]


def test_the_site_of_a_file(mill: Mill, csv: Csv) -> None:
    alone = mill(("site: {column: site}", ""))
    assert whole(csv([GOOD]), alone, site="N").readings["_site"].tolist() == ["north"]
    with pytest.raises(ReadingsError, match="site of this file must be given"):
        read(csv([GOOD]), alone)
    with pytest.raises(ReadingsError, match=r"'X'.*'north'"):
        read(csv([GOOD]), alone, site="X")
    batch = whole(csv([GOOD, GOOD.replace("N,", "south,")]), mill(), site="north")
    assert batch.readings["_site"].tolist() == ["north"]
    assert batch.rejected["_problem"].tolist() == ["other site"]


def test_an_all_missing_feature_and_one_class_are_fine(mill: Mill, csv: Csv) -> None:
    batch = whole(csv([GOOD.replace("20.5", "").replace("r1", f"r{row}") for row in range(5)]), mill())
    assert batch.readings["T [°C]"].isna().all()
    assert batch.readings["T [°C]"].dtype == "float64"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\n\n", ["empty"]),
        (b"site,run,time,mode,fault\nN,r,2024,eco,0\n", ["'T [°C]'", "missing", "'mode'"]),
        (b",,,\n", ["no header"]),
        (bytes(range(256)) * 8, []),
        (b"PK\x03\x04" + bytes(100), ["ZIP"]),
        (b"PAR1" + bytes(100), ["Parquet"]),
        (b"\x1f\x8b" + bytes(100), []),
        ("site,run,time,T [°C],mode,fault\n".encode("latin-1"), ["source.encoding"]),
    ],
)
def test_a_file_that_is_none(mill: Mill, tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(ReadingsError) as caught:
        list(read(path, mill()))
    assert str(path) in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_header_and_no_rows(mill: Mill, csv: Csv) -> None:
    with pytest.raises(ReadingsError, match="no rows"):
        list(read(csv([]), mill()))


def test_no_file(mill: Mill, tmp_path: Path) -> None:
    with pytest.raises(ReadingsError, match=r"nowhere\.csv.*No such file"):
        read(tmp_path / "nowhere.csv", mill())


def test_a_truncated_archive(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    packed = gzip.compress(csv([GOOD.replace("r1", f"r{row}") for row in range(5000)]).read_bytes())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ReadingsError, match="cannot be read"):
        list(read(path, mill(), chunk_rows=1000))


def test_a_gzipped_file_and_utf_16(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(csv([GOOD]).read_bytes()))
    assert len(whole(path, mill()).readings) == 1
    assert len(whole(csv([GOOD], encoding="utf-16"), mill()).readings) == 1


def test_one_undecodable_row_costs_one_row(mill: Mill, csv: Csv) -> None:
    path = csv([GOOD, "N,r\udcff,2024-01-01,1,eco,0".replace("\udcff", "@"), GOOD.replace("r1", "r2")])
    path.write_bytes(path.read_bytes().replace(b"@", b"\xff"))
    batch = whole(path, mill())
    assert (len(batch.readings), batch.rejected["_line"].tolist()) == (2, [3])
    assert "utf-8" in batch.rejected["_reason"][0]
    batch.rejected["_row_text"][0].encode("utf-8")


def test_a_rejected_rows_text_is_short_json(mill: Mill, csv: Csv) -> None:
    long = GOOD.replace("20.5", '"' + 'x""\\' * 3000 + '"')
    batch = whole(csv([long, "N," + "\x01é" * 4000]), mill())
    assert len(batch.rejected) == 2
    for text in batch.rejected["_row_text"]:
        assert 1000 < len(text) <= 2000
        json.loads(text)


def test_parquet_keeps_its_types(mill: Mill, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "site": pa.array(["N", "N", "south", "X"]).dictionary_encode(),
            "run": pa.array([1, 1, 2, 2]),
            "time": pd.date_range("2024-01-01", periods=4, freq="h", tz="Europe/Oslo"),
            "T [°C]": pa.array([1.5, float("inf"), None, 2.0]),
            "mode": ["eco", None, "full", "eco"],
            "fault": [True, False, None, True],
        }
    )
    pq.write_table(table, path)
    batch = whole(path, mill(), chunk_rows=2)
    assert batch.readings["_time"][0] == pd.Timestamp("2023-12-31 23:00")
    assert batch.readings["_run"].tolist() == ["1", "2"]
    assert batch.readings["_label"].tolist() == [True, pd.NA]
    assert batch.rejected[["_line", "_problem"]].to_numpy().tolist() == [
        [2, "not finite"],
        [4, "unknown site"],
    ]


def test_a_column_that_is_no_text(mill: Mill, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    names = ["site", "run", "time", "T [°C]", "mode", "fault"]
    pq.write_table(pa.table({name: [["nested"]] for name in names}), path)
    with pytest.raises(ReadingsError, match="'site' is list"):
        list(read(path, mill()))


MESS = st.text(st.sampled_from([*"ab019.,;-+e\"'# \t\\?NSüT:", "\r", "\x00", "\u2028"]), max_size=30)
CELL = st.sampled_from(
    ["N", "south", "r1", "2024-01-01", "2024-01-01 00:00:01", "20", "-3", "999", "eco", "1", "0", ""]
)
LINE = st.one_of(MESS, st.lists(CELL, min_size=5, max_size=7).map(",".join), st.just(GOOD))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(LINE, min_size=1, max_size=12),
    st.sampled_from([1, 3, 100]),
    st.sampled_from(["column: run", "rows: 10"]),
)
@example([GOOD, GOOD], 1, "column: run")
def test_rows_in_are_readings_and_rejected_whatever_is_in_the_file(
    lines: list[str], chunk: int, runs: str
) -> None:
    usecase = usecases.loads(BASE.replace("column: run", runs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mess.csv"
        path.write_bytes("\n".join(["site,run,time,T [°C],mode,fault", *lines]).encode())
        rows = [line for line in path.read_text("utf-8").split("\n")[1:] if line.strip()]
        if not rows:
            return
        batches = list(read(path, usecase, chunk_rows=chunk))
    assert sum(len(b.readings) + len(b.rejected) for b in batches) == len(rows)
    table = pd.concat([b.readings for b in batches])
    assert (
        table.groupby(["_site", "_run"])["_row"].max() + 1 == table.groupby(["_site", "_run"]).size()
    ).all()
    assert not table["T [°C]"].abs().eq(np.inf).any()
    for batch in batches:
        assert batch.rejected["_reason"].str.len().gt(0).all()
        assert all(len(text) <= 2000 and json.loads(text) is not None for text in batch.rejected["_row_text"])


BASE = """
name: mill
time: {columns: [time]}
site: {column: site}
runs: {column: run}
features:
  - {name: "T [°C]", unit: °C, range: [-50, 200]}
  - {name: mode, kind: category, categories: [eco, full]}
label: {column: fault, positive: [1]}
sites: [{name: north, value: N}, {name: south}]
"""


def test_a_large_file_is_read_in_bounded_memory(csv: Csv, tmp_path: Path) -> None:
    """300,000 rows of ten columns, of which 100,000 are broken, in a process of its own."""
    header = "site,run,time,mode,fault,T [°C],a,b,c,d"
    lines = []
    for row in range(300_000):
        stamp = f"2024-01-{1 + row // 86_400:02}T{row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}"
        broken = "#VALUE!" if row % 3 == 0 else "20.125"
        lines.append(f"N,run-{row // 1000},{stamp},eco,0,{broken},1.5,2.5,3.5,4.5")
    path = csv(lines, header)
    (tmp_path / "mill.yaml").write_text(BASE, "utf-8")
    script = f"""
import resource
from pathlib import Path
from edge_ai_assets import usecase
from edge_ai_assets.readings.files import read
declared = usecase.load(Path({str(tmp_path / "mill.yaml")!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
good = bad = 0
for batch in read(Path({str(path)!r}), declared, chunk_rows=20_000):
    good, bad = good + len(batch.readings), bad + len(batch.rejected)
print(good, bad, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    good, bad, grown = map(int, done.stdout.split())
    assert (good, bad) == (200_000, 100_000)
    assert grown < 250, f"grew by {grown} MB"


CELLS = st.sampled_from(
    [
        "20",
        "-3",
        "+5",
        "1e2",
        "999",
        "inf",
        "nan",
        "None",
        "#VALUE!",
        "",
        " 7 ",
        "1,5",
        "-200",
        "\u00e9",
        "\x00",
    ]
)
ROW = st.builds(
    lambda temperature, mode, label, second: (
        f"N;r1;2024-01-01 00:00:{second:02};{temperature};{mode};{label}"
    ),
    *(CELLS, st.sampled_from(["eco", "full", "", "turbo", " eco"])),
    *(st.sampled_from(["0", "1", "", "TRUE", "maybe", "1.0"]), st.integers(0, 59)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(ROW, ROW, MESS, st.just('N;"r;1";2024-01-02;20;eco;0')), min_size=1, max_size=12),
    st.sampled_from(["", "source: {missing: [-200]}", "source: {decimal: ','}"]),
)
def test_a_row_is_what_it_is_alone_whatever_stands_beside_it(lines: list[str], source: str) -> None:
    """What nothing is wrong with is read at once; a bad cell must change its own row only."""
    usecase = usecases.loads(BASE + source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mess.csv"
        path.write_bytes("\n".join(["site;run;time;T [°C];mode;fault", *lines, ROW_OF_ITS_OWN]).encode())
        together, alone = whole(path, usecase), whole(path, usecase, chunk_rows=1)
    pd.testing.assert_frame_equal(together.readings, alone.readings)
    pd.testing.assert_frame_equal(together.rejected, alone.rejected)


ROW_OF_ITS_OWN = "N;r2;2024-01-01;20;eco;0"
"""At the end, so that there is a row."""
