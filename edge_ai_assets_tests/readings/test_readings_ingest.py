"""Ingestion: each file once, whole or not at all, and tables that come out of Parquet as they went in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from edge_ai_assets import usecase as usecases
from edge_ai_assets.readings import ingest as module
from edge_ai_assets.readings.files import ReadingsError, read
from edge_ai_assets.readings.ingest import ingest
from edge_ai_assets.usecase import UseCase

LINES = [
    "N,r1,2024-01-01 00:00:00,20.5,eco,0",
    "N,r1,2024-01-01 00:00:10,,full,",
    "N,r1,2024-01-01 00:00:20,999,eco,0",
    "N,r1,2024-01-01 00:00:25,-99,eco,0",
    "X,r1,2024-01-01 00:00:30,1,eco,1",
]
Mill = Callable[..., UseCase]
Csv = Callable[..., Path]


def files(lake: Path) -> list[str]:
    return sorted(str(path.relative_to(lake)) for path in lake.rglob("*") if path.is_file())


def test_what_is_written_and_returned(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    result = ingest(csv(LINES), mill(), lake)
    assert (result.source, result.rows, result.rejected, result.new) == ("mill.csv", 2, 3, True)
    assert result.reasons == {"out of range": 2, "unknown site": 1}
    assert (result.first, result.last) == (datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 10))
    assert len(result.digest) == 16
    assert files(lake) == [f"quarantine/{result.digest}.parquet", f"raw_telemetry/{result.digest}.parquet"]


def test_the_table_survives_parquet(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase, path = mill(), csv(LINES)
    result = ingest(path, usecase, tmp_path)
    (batch,) = read(path, usecase)
    for folder, table in (("raw_telemetry", batch.readings), ("quarantine", batch.rejected)):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / folder / f"{result.digest}.parquet"), table)


NAMES = ["a b", "[K]", "x:y", "a.b", "ü°³", "'q'", 'd"q', "a,b", "{x}", "SELECT", "a/b", "%s", "#"]


def test_column_names_of_any_kind_survive(csv: Csv, tmp_path: Path) -> None:
    usecase = usecases.UseCase.model_validate(
        {
            "name": "odd",
            "runs": {"rows": 10},
            "features": [{"name": name} for name in NAMES],
            "label": {"column": "y", "positive": [1]},
            "sites": [{"name": "north"}],
        }
    )
    header = ";".join('"' + name.replace('"', '""') + '"' for name in [*NAMES, "y"])
    path = csv([";".join(map(str, range(len(NAMES) + 1)))], header)
    result = ingest(path, usecase, tmp_path, site="north")
    table = pd.read_parquet(tmp_path / "raw_telemetry" / f"{result.digest}.parquet")
    assert [table[name][0] for name in NAMES] == list(range(len(NAMES)))


def test_the_same_file_again_is_not_read(
    mill: Mill, csv: Csv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv(LINES)
    first = ingest(path, mill(), tmp_path)
    monkeypatch.setattr(module, "read", lambda *_args, **_options: pytest.fail("it was read"))
    again = ingest(path.rename(path.with_name("other.csv")), mill(), tmp_path)
    assert again.new is False
    assert {**vars(again), "new": True} == vars(first)


def test_it_is_read_again_when_the_use_case_reads_it_differently(
    mill: Mill, csv: Csv, tmp_path: Path
) -> None:
    path = csv(LINES)
    ingest(path, mill(), tmp_path)
    assert ingest(path, mill(("name: mill", "gates: {f1: 0.9}\nname: mill")), tmp_path).new is False
    wider = ingest(path, mill(("[-50, 200]", "[-100, 1000]"), ("value: N", "value: X")), tmp_path)
    assert (wider.new, wider.rows) == (True, 1)
    everything = mill(("[-50, 200]", "[-100, 1000]"), ("- {name: south}", "- {name: south, value: X}"))
    assert ingest(path, everything, tmp_path).rejected == 0
    assert files(tmp_path / "quarantine") == [], "an older quarantine would count rows twice"


def test_the_parent_folder_is_the_site(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    usecase, path = mill(("site: {column: site}", "")), csv(LINES[:1])
    results = []
    for site in ("south", "N"):
        target = tmp_path / site / "mill.csv"
        target.parent.mkdir()
        target.write_bytes(path.read_bytes())
        results.append(ingest(target, usecase, tmp_path / "lake"))
    assert results[0].digest != results[1].digest, "the same bytes from two sites are two files"
    table = pd.read_parquet(tmp_path / "lake" / "raw_telemetry")
    assert sorted(table["_site"]) == ["north", "south"]
    with pytest.raises(ReadingsError, match="not in the use case"):
        ingest(path, usecase, tmp_path / "lake")


def test_nothing_is_left_when_reading_fails_halfway(
    mill: Mill, csv: Csv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(*args: object, **options: object) -> object:
        yield from read(*args, **options)  # type: ignore[arg-type]
        raise ReadingsError("the disk is gone")

    lake = tmp_path / "lake"
    path = csv(LINES)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read", breaking)
        with pytest.raises(ReadingsError, match="gone"):
            ingest(path, mill(), lake)
    assert files(lake) == []
    assert ingest(path, mill(), lake).new


def test_a_file_of_only_broken_rows_is_ingested_too(mill: Mill, csv: Csv, tmp_path: Path) -> None:
    result = ingest(csv(LINES[2:]), mill(), tmp_path)
    assert (result.rows, result.rejected, result.first) == (0, 3, None)
    assert ingest(csv(LINES[2:]), mill(), tmp_path).new is False


@pytest.mark.parametrize("content", [b"", b"site,run\n", b"\x00\x01\x02"])
def test_a_file_that_is_none_leaves_nothing(mill: Mill, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ReadingsError, match=r"bad\.csv"):
        ingest(path, mill(), tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
