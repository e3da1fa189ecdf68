"""The world around the assets, as a demo or a test plays it: readings come, people judge, links fail.

It acts only where the world would (files, a switch, the scoring service's API) and looks at what came of it.
The story is told in `story`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_ai_assets import keys
from edge_ai_assets.delivery import pack
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import plain
from edge_ai_assets.returns.outbox.outbox import Outbox
from edge_ai_assets.runs import in_flight
from edge_ai_assets.scoring import batch, supervisor
from edge_ai_assets.scoring.client import Client
from edge_ai_assets.stack_hub import returning, scoring
from edge_ai_assets.status import status
from edge_ai_assets.usecase import Ring, UseCase

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd

PATIENCE = 600.0
"""Seconds that any one thing may be waited for."""
JUDGED = 5_000
"""Judgements in one request."""


class DemoError(RuntimeError):
    """It cannot go on; the message says at what, and where to look."""


class World:
    """One home and what happens in it; a context manager.

    Args:
        alive: whether Dagster's daemon still runs.
    """

    def __init__(self, home: Home, usecase: UseCase, alive: Callable[[], bool]) -> None:
        import dagster as dg

        self.home, self.usecase, self.alive = home, usecase, alive
        self.names = [site.name for site in usecase.sites]
        self.instance: dg.DagsterInstance = dg.DagsterInstance.from_config(str(home.dagster))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.instance.dispose()

    # What it does.

    def deliver(self, path: Path, folder: Path) -> None:
        """Put a file where it is looked for, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{path.name}"
        shutil.copyfile(path, hidden)
        os.replace(hidden, folder / path.name)

    def judge(self, files: list[tuple[str, Path]]) -> int:
        """Answer for the people of the sites: the labels of these files, for the scores of their readings."""
        labels: dict[str, dict[tuple[str, int], bool]] = {name: {} for name in self.names}
        for name, readings in numbered(files, self.usecase):
            known = readings[readings["_label"].notna()]
            rows = zip(known["_run"], known["_row"], known["_label"], strict=True)
            labels[name] |= {(run, row): bool(label) for run, row, label in rows}
        judged = 0
        for name in self.names:
            site = self.home.site(name)
            if not labels[name]:
                continue
            with (
                Client(scoring.running(site).url or "") as client,
                Outbox(site.outbox, create=False) as outbox,
            ):
                last = outbox.counts().scored
                for first in range(1, last + 1, JUDGED):
                    items = []
                    for row in outbox.rows(first, min(last, first + JUDGED - 1)):
                        context = json.loads(row.record)["context"]
                        label = labels[name].get((context["_run"], context["_row"]))
                        if label is not None:
                            items.append(
                                {"id": f"{name}/{row.sequence}", "correct": label, "role": "operator"}
                            )
                    if items:
                        judged += client.feedback(items)
        return judged

    # What is seen.

    def status(self) -> dict[str, Any]:
        return status(self.home, self.usecase)

    def counts(self, name: str) -> dict[str, int]:
        return dict(returning.as_dict(returning.counts(self.home.site(name))))

    def version(self) -> int:
        newest = pack.newest(self.home.registry, self.home.keys)
        return newest.version if newest else 0

    def all_run(self, version: int) -> bool:
        found = [supervisor.status(self.home.site(name).root) for name in self.names]
        return all(service is not None and service.version == version for service in found)

    def by_start(self) -> list[str]:
        """Sites in the order in which their release began to serve."""

        def since(name: str) -> str:
            service = supervisor.status(self.home.site(name).root)
            return (service.since or "") if service else ""

        return sorted(self.names, key=since)

    def ring(self, name: str) -> Ring:
        return next(site.ring for site in self.usecase.sites if site.name == name)

    def all_scored(self) -> bool:
        return not any(batch.waiting(self.home.site(name)) for name in self.names) and not self.busy(
            "score_sites"
        )

    def packed(self, name: str) -> bool:
        """Whether nothing waits at a site but packages."""
        site = self.home.site(name)
        with Outbox(site.outbox, create=False) as outbox:
            return not (outbox.untouched() or outbox.waiting(1) or outbox.waiting_feedback(1))

    def sent(self, name: str) -> bool:
        site = self.home.site(name)
        if not site.outbox.exists():
            return True
        with Outbox(site.outbox, create=False) as outbox:
            return self.packed(name) and not outbox.unsent()

    def ready(self, name: str) -> bool:
        """Whether everything that may leave lies where a person takes it to carry."""
        site = self.home.site(name)
        with Outbox(site.outbox, create=False) as outbox:
            waiting = [package.name for package in outbox.unsent()]
        return (
            self.packed(name)
            and all((site.outgoing / package).exists() for package in waiting)
            and not self.busy("upload_sites")
            and not self.busy("insights_of_sites")
        )

    def packages_waiting(self, name: str) -> int:
        with Outbox(self.home.site(name).outbox, create=False) as outbox:
            return len(outbox.unsent())

    def all_home(self) -> bool:
        from edge_ai_assets.azure import arrivals

        return not arrivals.new_packages(self.home) and not self.busy("bring_home")

    def drifting(self) -> list[str] | None:
        """Sites at which drift was seen; None when it was not looked for yet."""
        from edge_ai_assets.azure import watch

        found = self.newest(keys.DRIFT)
        return None if found is None else list(found[watch.SITES])

    def newest(self, key: dg.AssetKey) -> dict[str, Any] | None:
        return plain(self.instance.get_latest_materialization_event(key))

    def busy(self, job: str) -> bool:
        return in_flight(self.instance, job)

    def finished(self, job: str) -> bool:
        import dagster as dg

        done = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
        return self.instance.get_runs_count(done) > 0 and not self.busy(job)

    def judged(self) -> int:
        """Scores by the newest release that people judged at the sites that drift, as far as it came home."""
        from edge_ai_assets.azure import watch

        return watch.feedback_rows(self.home, self.drifting() or [])

    def reasons(self) -> list[str]:
        """Why retrainings that succeeded were started."""
        import dagster as dg

        from edge_ai_assets.azure.automation import REASON

        done = dg.RunsFilter(job_name="retrain", statuses=[dg.DagsterRunStatus.SUCCESS])
        return [run.tags.get(REASON, "") for run in self.instance.get_runs(done)]

    def failed_runs(self) -> list[str]:
        import dagster as dg

        failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        return [f"{run.job_name} ({run.run_id[:8]}): {self.cause(run.run_id)}" for run in failed]

    def cause(self, run_id: str) -> str:
        """The first error of a run, as a line."""
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event and event.is_step_failure:
                said, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
                if said and said.description:
                    return said.description
                if error:
                    return (error.cause or error).message.strip().splitlines()[-1]
        return "see its log"

    # Waiting.

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait; DemoError when a run fails, the daemon ends or patience does."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if failed := self.failed_runs():
                raise DemoError(f"waiting for {what}: a run failed: {failed[0]}")
            if not self.alive():
                raise DemoError(
                    f"waiting for {what}: Dagster's daemon ended: see {self.home.dagster / 'daemon.log'}"
                )
            if time.monotonic() > deadline:
                raise DemoError(
                    f"waited {PATIENCE:.0f} s for {what} in vain: "
                    f"see {self.home.dagster / 'daemon.log'} and `make ui`"
                )
            time.sleep(0.3)


def numbered(files: list[tuple[str, Path]], usecase: UseCase) -> Iterator[tuple[str, pd.DataFrame]]:
    """Readings of each site's files, as it takes them up: by name, rows of a run numbered on over files."""
    from edge_ai_assets.readings.files import read

    for name in sorted({name for name, _ in files}):
        next_row: dict[str, int] = {}
        of_site = [path for site, path in files if site == name]
        for path in sorted(of_site, key=lambda path: path.name):
            begun = dict(next_row)
            for part in read(path, usecase, site=name):
                offset = part.readings["_run"].map(begun).fillna(0).astype("int64")
                readings = part.readings.assign(_row=part.readings["_row"] + offset)
                for run, last in readings.groupby("_run")["_row"].max().items():
                    next_row[str(run)] = int(last) + 1
                yield name, readings
