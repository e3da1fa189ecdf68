"""What feeds a demo: a history to train on and phases that then reach the sites, as files of raw readings.

Two sources with one interface: the simulator, and a plant's own files cut up. Cells stay as they are written,
dirt included; reading them is `files`' work, and when a phase begins is the demo's decision.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from edge_ai_assets.readings import rules, simulator
from edge_ai_assets.readings.cut import RawChunk
from edge_ai_assets.readings.files import check_columns, files_of, stem
from edge_ai_assets.readings.raw import RawFile, ReadingsError
from edge_ai_assets.readings.runs import Codes, RunNames
from edge_ai_assets.usecase import UseCase

CHUNK = 100_000


@dataclass(frozen=True)
class Plant:
    """`history` is there for the first training; each phase gives, by site, files that come in later."""

    history: list[Path]
    phases: list[dict[str, list[Path]]]
    simulated: bool


def simulated_plant(usecase: UseCase, out: Path, *, seed: int = 7) -> Plant:
    """Simulated stations: 40 shifts of history, 6 more like them, then twice 12 after a conversion.

    The conversion comes with the second phase; the third shows how a model does that was retrained on the
    second. One row in a hundred is dirty.
    """
    parts = [(0, 40, False), (40, 6, False), (46, 12, True), (58, 12, True)]
    paths: list[dict[str, list[Path]]] = []
    for number, (first, shifts, drifted) in enumerate(parts):
        folder = out / ("history" if number == 0 else f"phase-{number}")
        paths.append({})
        for site in usecase.sites:
            frame = simulator.simulate(
                site.name, seed=seed, shifts=shifts, first_shift=first, drifted=drifted
            )
            frame["station"] = site.value or site.name
            path = folder / site.name / f"simulated-{site.name}-{first:03d}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            simulator.dirty(frame, seed=seed + first).to_csv(path, index=False)
            paths[-1][site.name] = [path]
    history, *phases = paths
    return Plant([path for group in history.values() for path in group], phases, simulated=True)


def file_plant(data: Path, usecase: UseCase, out: Path, *, first_share: float = 0.25) -> Plant:
    """One's own files, cut by `usecase.history` into a history and two phases, along whole runs.

    A run belongs where it begins, and runs are taken in the order in which they begin, whatever the order of
    files and of rows in them. `history` as a share is one of each site's rows. The first phase has the first
    `first_share` of each site's later runs, at least one; the second has the rest. Rows whose site, run or
    time cannot be read go to the history, where ingestion quarantines them. When neither a column nor the
    folder nor the name of a file names the site, runs are dealt in turn to the use case's sites.

    Args:
        data: a file, or a folder that is searched for files with any of `ENDINGS`.
        usecase: says how rows, sites and runs are told apart.
        out: folder to write `history/`, `phase-1/` and `phase-2/` to, as CSV; those of an earlier call are
            replaced.
        first_share: share of the later runs that the first phase has, 0 to 1.

    Raises:
        ReadingsError: there is no file, one cannot be read, or `history` leaves a part without a run.
    """
    files, root = files_of(data), data if data.is_dir() else data.parent
    cutter = _Cutter(usecase)
    named = {path: "-".join([*path.relative_to(root).parent.parts, stem(path)]) for path in files}
    for path, name in named.items():
        cutter.look(RawFile(path, usecase.source), name)
    if not cutter.runs:
        raise ReadingsError(f"{data}: no row can be told a site, a run and a time: {cutter.problem}")
    cutter.deal(first_share)
    counts = [sum(run.part == part for run in cutter.runs) for part in range(3)]
    if not counts[0] or not counts[1] or (not counts[2] and first_share < 1):
        side = "no history" if not counts[0] else "nothing to replay" if not counts[1] else "one phase only"
        raise ReadingsError(
            f"{data}: history {usecase.history!r} leaves {side} of {sum(counts)} runs; set history to "
            "another share or time, or declare shorter runs"
        )
    parts = [out / "history", out / "phase-1", out / "phase-2"]
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    written: list[dict[str, set[Path]]] = [{}, {}, {}]
    for path, name in named.items():
        for number, site, lines, header in cutter.cut(RawFile(path, usecase.source), name):
            # Blocks of rows are named by the file, and no run may go by the name of an earlier one.
            target = parts[number] / site / f"{name}{f'-{number}' if number else ''}.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target not in written[number].setdefault(site, set())
            written[number][site].add(target)
            # Written as it was read: undecodable bytes come out as they went in.
            with target.open("a", encoding=usecase.source.encoding, errors="surrogateescape") as file:
                file.writelines(line + "\n" for line in ([header] if fresh else []) + lines)
    history, *phases = [{site: sorted(paths) for site, paths in part.items()} for part in written]
    return Plant([path for paths in history.values() for path in paths], phases, simulated=False)


@dataclass
class _Run:
    """One run while it is decided where it goes: part 0 is the history, 1 and 2 are the phases."""

    site: str
    start: pd.Timestamp
    rows: int = 0
    part: int = 0


class _Cutter:
    """Where each run goes. It looks at every file once to find the runs, and reads it again to cut it.

    A run that goes on in another file is the same run.
    """

    def __init__(self, usecase: UseCase) -> None:
        self._usecase = usecase
        self._codes = Codes()
        self._cut, self._share = _cut(usecase)
        self.runs: list[_Run] = []
        """By code, which is the order in which they were met."""
        self.problem = "the file has a header and no rows"
        """Why the first row is without a run that is."""

    def look(self, file: RawFile, name: str) -> None:
        """Find the runs that begin in a file, and count their rows."""
        check_columns(file, self._usecase)
        for _, codes, table in self._coded(file, name):
            table = table.assign(code=codes)[codes >= 0]
            first = table[table["code"] >= len(self.runs)].drop_duplicates("code").sort_values("code")
            self.runs += [_Run(site, time) for site, time in zip(first["site"], first["time"], strict=True)]
            # A run begins at its earliest row; in a file with the newest first that is its last one.
            for code, rows, start in table.groupby("code")["time"].agg(["size", "min"]).itertuples():
                self.runs[code].rows += rows
                self.runs[code].start = min(start, self.runs[code].start)

    def deal(self, first_share: float) -> None:
        """Say what is history, give runs without a site one in turn, and split what comes later in two."""
        runs = sorted(self.runs, key=lambda run: run.start) if self._usecase.time else self.runs
        for site in {run.site for run in runs}:
            self._set_history([run for run in runs if run.site == site])
        names = [site.name for site in self._usecase.sites]
        for position, run in enumerate(run for run in runs if not run.site):
            run.site = names[position % len(names)]
        later: dict[str, list[_Run]] = {}
        for run in runs:
            if run.part:
                later.setdefault(run.site, []).append(run)
        for of_site in later.values():
            for run in of_site[: max(1, round(first_share * len(of_site)))]:
                run.part = 1

    def _set_history(self, runs: list[_Run]) -> None:
        total, before = sum(run.rows for run in runs), 0
        for run in runs:
            history = before < self._share * total if self._cut is None else run.start < self._cut
            run.part = 0 if history else 2
            before += run.rows

    def cut(self, file: RawFile, name: str) -> Iterator[tuple[int, str, list[str], str]]:
        """Part, site, lines as they are written, and the header, chunk by chunk."""
        home = _named_site(file.path, self._usecase) or self._usecase.sites[0].name
        parts = np.array([*(run.part for run in self.runs), 0])
        sites = np.array([*(run.site for run in self.runs), home], dtype=object)
        header = _joined(file.columns) if file.is_parquet else file.header_line.rstrip("\n")
        for chunk, codes, _ in self._coded(file, name):
            lines = np.array(_lines(chunk) if chunk.lines is None else chunk.lines, dtype=object)
            targets, distinct = pd.MultiIndex.from_arrays([parts[codes], sites[codes]]).factorize()
            for target, (part, site) in enumerate(distinct):
                yield int(part), str(site), lines[targets == target].tolist(), header

    def _coded(self, file: RawFile, name: str) -> Iterator[tuple[RawChunk, np.ndarray, pd.DataFrame]]:
        """Chunks with each row's run as a code, -1 where it cannot be told, and each row's site and time.

        The site is "" when neither a column nor the folder nor the file names it.
        """
        usecase, source = self._usecase, self._usecase.source
        names = RunNames(usecase.runs, name)
        for chunk in file.chunks(CHUNK):
            cells, verdict = chunk.cells, rules.Verdict(chunk.rows)
            verdict.good[list(chunk.broken)] = False
            site = np.full(chunk.rows, _named_site(file.path, usecase), dtype=object)
            run = np.full(chunk.rows, "", dtype=object)
            time = pd.Series(np.full(chunk.rows, np.datetime64("NaT", "us")))
            if usecase.site:
                site = rules.sites(usecase, usecase.site.column, cells[usecase.site.column], None, verdict)
            if usecase.time:
                time = rules.times(
                    usecase.time, [cells[name] for name in usecase.time.columns], source, verdict
                )
            if usecase.runs.column:
                named = rules.run_names(usecase.runs.column, cells[usecase.runs.column], source, verdict)
                run = named.to_numpy(object)
            good = verdict.good
            if not usecase.runs.column:
                run[good] = names.of(site[good], time[good])
            if not self.runs:
                reasons = verdict.problems.items()
                self.problem = next((f"{reason[1]} (row {row + 1})" for row, reason in reasons), self.problem)
            codes = np.full(chunk.rows, -1, np.int64)
            codes[good] = self._codes.of(site[good], run[good])
            yield chunk, codes, pd.DataFrame({"site": site, "time": time})


def _named_site(path: Path, usecase: UseCase) -> str:
    """The site that the file's folder or own name gives, "" when neither does or a column gives it."""
    if usecase.site:
        return ""
    names = rules.site_names(usecase)
    return names.get(path.resolve().parent.name) or names.get(stem(path), "")


def _cut(usecase: UseCase) -> tuple[pd.Timestamp | None, float]:
    """`usecase.history` as a time, or as a share of the rows."""
    history = str(usecase.history)
    if re.fullmatch(r"[0-9.]+", history) and float(history) <= 1:
        return None, float(history)
    try:
        cut = pd.Timestamp(history)
    except ValueError as error:
        raise ReadingsError(
            f"history is {history!r}, neither a share from 0 to 1 nor an ISO 8601 time"
        ) from error
    if usecase.time is None:
        raise ReadingsError(f"history is {history!r}, but the use case has no time; give a share of the rows")
    return (cut.tz_convert(None) if cut.tzinfo else cut), 0.0


def _lines(chunk: RawChunk) -> list[str]:
    columns = [column.cast(pa.string()).fill_null("").to_pylist() for column in chunk.cells.values()]
    return [_joined(row) for row in zip(*columns, strict=True)]


def _joined(cells: list[str] | tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([cell.replace("\n", " ") for cell in cells])
    return text.getvalue()
