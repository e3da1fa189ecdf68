"""Features made by Spark on a cluster, of readings that lie in the data lake.

The plan and the script that runs it are put into the lake's container, the cluster writes the features there,
and they are brought here. All of it is known by the plan's name: who asks the same again takes over a job
that is on its way, or what it made. How a cluster is talked to is `livy`'s and `azure_ml`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import dagster as dg

from edge_ai_assets.ml import feature_plan, spark_features
from edge_ai_assets.ml.feature_plan import Manifest, Plan
from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.patient_blobs import PatientBlobs
from edge_ai_assets.usecase import UseCase

JOBS = "jobs"
"""The folder of the container that holds a folder a job."""
RAW = "raw_telemetry"
SCRIPT = "spark_features.py"


@dataclass(frozen=True)
class Look:
    """How a job stands."""

    state: str
    """In the cluster's words."""
    ended: bool
    worked: bool = False


class Cluster(Protocol):
    """What runs a script with Spark. Each method may raise `Unavailable` and `Refused`, see
    `calling.patience`."""

    @property
    def patience(self) -> Patience:
        """With outages, and how often a job is looked at."""

    def look(self, name: str) -> Look | None:
        """How the job of this name stands; None if there is none."""

    def start(self, name: str, script: str, arguments: Sequence[str]) -> None:
        """Start a job unless there is one of its name.

        Args:
            script: URI of the script in the lake.
        """

    def cancel(self, name: str) -> None:
        """Ask for the end of a job; it is not waited for."""

    def why(self, name: str) -> str:
        """What a failed job failed of: its last lines."""


@dataclass(frozen=True)
class SparkEngine:
    """An engine of features, see `training_set.Engine`.

    Args:
        account: of the storage that holds the lake's container, with the endpoint of its blobs.
        lake: the container; the readings are mirrored to it.
        hours: after which a job is cancelled.
    """

    cluster: Cluster
    account: Account = field(repr=False)
    lake: str = "lake"
    hours: float = 12.0

    def __call__(self, raw: Path, usecase: UseCase, into: Path) -> Manifest:
        """Features of the readings in the lake that are also in `raw`.

        Raises:
            dg.Failure: the cluster or the lake is out of reach for too long, or refuses, or the job failed.
        """
        plan = feature_plan.plan(usecase, [file.name for file in raw.glob("*.parquet")], quote="`")
        folder = f"{JOBS}/features-{plan.name}"
        try:
            if self._blobs.get(f"{folder}/made/manifest.json") is None:
                self._make(plan, folder)
            self._blobs.fetch(f"{folder}/made", into)
        except (Unavailable, Refused) as error:
            raise dg.Failure(f"features on Spark: {error}") from error
        return _checked(plan, into)

    def _make(self, plan: Plan, folder: str) -> None:
        lacking = set(plan.files) - self._blobs.names(RAW)
        if lacking:
            raise Refused(
                f"{len(lacking)} of {len(plan.files)} files of readings are not in the container {self.lake} "
                f"yet, such as {RAW}/{min(lacking)}: run lake/raw_telemetry when the account is in reach"
            )
        self._blobs.put(f"{folder}/plan.json", plan.text.encode())
        self._blobs.put(f"{folder}/{SCRIPT}", Path(spark_features.__file__).read_bytes())
        name, there = self._choose(f"features-{plan.name}")
        if there is None:
            here = f"{self.root}/{folder}"
            arguments = [
                "--plan",
                f"{here}/plan.json",
                "--raw",
                f"{self.root}/{RAW}",
                "--out",
                f"{here}/made",
            ]
            self.cluster.start(name, f"{here}/{SCRIPT}", arguments)
        self._follow(name)

    def _choose(self, first: str) -> tuple[str, Look | None]:
        """The name of the job, and how it stands if somebody started it already and it did not fail."""
        for attempt in itertools.count(1):
            name = first if attempt == 1 else f"{first}-{attempt}"
            look = self.cluster.look(name)
            if look is None or not look.ended:
                return name, look
        raise AssertionError("attempts have no end")

    def _follow(self, name: str) -> None:
        """See a job to its end."""
        log, patience = dg.get_dagster_logger(), self.cluster.patience
        begun, state, pauses = patience.clock(), "", patience.pauses()
        try:
            while True:
                look = self.cluster.look(name)
                if look is None:
                    raise Refused(f"job {name} is gone from the cluster")
                if look.state != state:
                    state, pauses = look.state, patience.pauses()
                    log.info(f"job {name} is {state}")
                if look.worked:
                    return
                if look.ended:
                    raise Refused(f"job {name} is {state}: {self.cluster.why(name)}")
                if patience.clock() - begun > self.hours * 3600:
                    self.cluster.cancel(name)
                    raise Refused(f"job {name} was still {state} after {self.hours:g} hours and is cancelled")
                patience.sleep(next(pauses))
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            log.info(f"interrupted: cancelling job {name}")
            self.cluster.cancel(name)
            raise

    @property
    def root(self) -> str:
        """URI of the container as Spark knows it, over the endpoint of the account's files."""
        host = urlsplit(self.account.endpoint).netloc.replace(".blob.", ".dfs.", 1)
        return f"abfss://{self.lake}@{host}"

    @cached_property
    def _blobs(self) -> PatientBlobs:
        return PatientBlobs(self.account, self.lake, self.cluster.patience)


def _checked(plan: Plan, into: Path) -> Manifest:
    """The manifest of what was brought, if it is all there and what was asked for."""
    import pyarrow.parquet as parquet

    manifest = feature_plan.manifest(into)
    rows = sum(parquet.read_metadata(file).num_rows for file in into.glob("*.parquet"))
    if manifest.plan != plan.name or manifest.rows != rows:
        raise dg.Failure(
            f"{manifest.rows} rows were made by plan {manifest.plan}, and {rows} came that should be by plan "
            f"{plan.name}: delete {JOBS}/features-{plan.name} in the lake's container, and run this again"
        )
    return manifest
