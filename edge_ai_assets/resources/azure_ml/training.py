"""Training on Azure Machine Learning: the training script as a command job, over Dagster Pipes on blobs.

All that belongs to a job is known by its name, and that by the run and the work: a run that is restarted, or
re-executed, while the job goes on finds it, its messages from the first on, and what it made. Code, inputs
and outputs lie in the lake's container, put there by our own client within its time-outs: the SDK's upload of
code can hang for ever. What a job is made of is `command_job`'s, how a workspace is talked to `workspace`'s.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from edge_ai_assets.home import Home
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.resources.azure_ml import command_job, pipes_blobs
from edge_ai_assets.resources.azure_ml.command_job import Target, Work
from edge_ai_assets.resources.azure_ml.pipes_blobs import BlobContext, BlobMessages
from edge_ai_assets.resources.azure_ml.workspace import ENDED, Workspace, state, studio
from edge_ai_assets.resources.calling.patience import Refused, Unavailable
from edge_ai_assets.resources.storage.account import Account
from edge_ai_assets.resources.storage.patient_blobs import PatientBlobs

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

JOBS = "jobs"
"""The folder of the container that holds a folder a job, and what jobs are given."""
LOOK = 15.0
"""Seconds between two looks at a job at most."""
OF_NO_USE = frozenset({"Failed", "Canceled", "CancelRequested"})
"""States of jobs that no run takes over."""

WAITS_FOR = {
    "Provisioning": "a machine is being started",
    "Preparing": "its environment is being built",
    "Queued": "it waits for a machine",
    "Finalizing": "what it made is being copied",
    "NotResponding": "its machine does not answer",
}


@dataclass(frozen=True)
class TrainingOnAzure:
    """Candidates are trained by jobs of a workspace, and known as versions of a model there.

    Args:
        reach: the workspace, and the storage account; asked for when there is something to do, because that
            fetches secrets.
        home: whose lake and models are mirrored to the container.
        lake: the container; `target.datastore` stands for it in the workspace.
    """

    reach: Callable[[], tuple[Workspace, Account]] = field(repr=False)
    target: Target
    home: Home
    lake: str = "lake"

    def train(
        self, context: dg.AssetExecutionContext, usecase: Path, training_set: Path, out: Path
    ) -> Sequence[dg.PipesExecutionResult]:
        try:
            work = self._work(usecase, training_set)
            name, there = self._choose(context, work)
            folder = f"{JOBS}/{name}"
            messages = BlobMessages(self._blobs, folder)
            way = pipes_blobs.way(self._account, self.lake, self.target.identity, self.target.hours)
            injector = BlobContext(self._blobs, folder, way)
            with dg.open_pipes_session(context, injector, messages) as session:
                variables = session.get_bootstrap_env_vars()
                tags = {"dagster_run": context.run.run_id, "training_set": training_set.stem}
                job = self._followed(context, name, messages, there, work, variables, tags)
            self._fetch(f"{folder}/candidate", out)
        except (Unavailable, Refused) as error:
            raise dg.Failure(
                f"{error}; if a job was started it goes on, and this run re-executed takes it over"
            ) from error
        return session.get_results(metadata={"job": dg.MetadataValue.url(studio(job) or name)})

    def register(
        self, name: str, model: Path, lineage: Lineage, figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        from azure.ai.ml.entities import Model

        blobs = model.resolve().relative_to(self.home.root.resolve()).as_posix()
        version = _version(lineage)
        tags = {
            "dagster_run": lineage.training_run,
            "training_set": lineage.training_set,
            "usecase": lineage.usecase,
            **{figure: str(value) for figure, value in figures.items()},
        }
        registered = Model(
            name=name,
            version=version,
            path=f"azureml://datastores/{self.target.datastore}/paths/{blobs}/",
            type="custom_model",
            tags=tags,
        )
        try:
            self._workspace.register(registered)
        except (Unavailable, Refused) as error:
            raise dg.Failure(str(error)) from error
        return {"registered": f"{self._workspace.name}: {name}:{version}"}

    def promote(self, name: str, lineage: Lineage) -> None:
        try:
            self._workspace.tag(name, _version(lineage), {"champion": "true"})
        except (Unavailable, Refused) as error:
            raise dg.Failure(str(error)) from error

    def _work(self, usecase: Path, training_set: Path) -> Work:
        """Put into the container what a job needs and nobody else brings."""
        blob = training_set.relative_to(self.home.lake).as_posix()
        if not self._blobs.has(blob):
            raise Refused(
                f"the training set {blob} is not in the container {self.lake} yet: the storage account was "
                "out of reach when it was made; run this again when it is back"
            )
        return Work(self._given(command_job.code(), ".zip"), self._given(usecase.read_bytes(), ".yaml"), blob)

    def _given(self, data: bytes, suffix: str) -> str:
        name = f"{JOBS}/given/{hashlib.sha256(data).hexdigest()}{suffix}"
        if not self._blobs.has(name):
            self._blobs.put(name, data)
        return name

    def _choose(self, context: dg.AssetExecutionContext, work: Work) -> tuple[str, Job | None]:
        """The name of the job, and the job if it is there: that of a run that this one carries on with."""
        first = command_job.job_name(context.run.root_run_id or context.run.run_id, work)
        for attempt in itertools.count(1):
            name = first if attempt == 1 else f"{first}-{attempt}"
            job = self._workspace.find(name)
            if job is None:
                return name, None
            if state(job) not in OF_NO_USE:
                context.log.info(f"job {name} was started before and is {state(job)}: it is taken over")
                return name, job
        raise AssertionError("attempts have no end")

    def _followed(
        self,
        context: dg.AssetExecutionContext,
        name: str,
        messages: BlobMessages,
        there: Job | None,
        work: Work,
        variables: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> Job:
        """Start the job unless it is there, and see it to its end.

        Raises:
            dg.Failure: it did not work, or took too long.
        """

        def make() -> Job:
            return command_job.command(name, work, self.target, f"{JOBS}/{name}", variables, tags)

        try:
            job = there or self._workspace.start(name, make)
            context.log.info(f"job {name} on {self.target.compute}: {studio(job) or self._workspace.name}")
            job = self._end(context, name, messages)
        except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
            context.log.info(f"interrupted: cancelling job {name}")
            try:
                self._workspace.cancel(name)
            except (Unavailable, Refused) as error:
                # Said only: the run was terminated, and a failed one would be retried.
                context.log.error(f"job {name} may go on: {error}")
            raise
        whole = messages.finish()
        if state(job) == "Completed" and whole:
            return job
        if state(job) == "Completed":
            why = "it ended without a last message, so what it reported is not whole; start a new run"
        elif state(job) == "Failed":
            why = self._workspace.why(name)
        else:
            why = "somebody cancelled it, or it took too long there"
        last = "\n".join(messages.last)
        raise dg.Failure(
            f"job {name} is {state(job)}: {why}" + (f"\nlast lines:\n{last}" if last else ""),
            metadata={"job": dg.MetadataValue.url(studio(job) or name)},
        )

    def _end(self, context: dg.AssetExecutionContext, name: str, messages: BlobMessages) -> Job:
        patience = self._workspace.patience
        begun, last, pauses = patience.clock(), "", patience.pauses()
        while True:
            job = self._workspace.find(name)
            if job is None:
                raise Refused(f"job {name} is gone from workspace {self._workspace.name}")
            messages.pull()
            if (now := state(job)) != last:
                last, pauses = now, patience.pauses()
                waits = f": {WAITS_FOR[now]}" if now in WAITS_FOR else ""
                context.log.info(f"job {name} is {now}{waits}")
            if now in ENDED:
                return job
            if patience.clock() - begun > self.target.hours * 3600:
                self._workspace.cancel(name)
                raise dg.Failure(
                    f"job {name} was still {now} after {self.target.hours:g} hours and is cancelled: see why "
                    f"in {studio(job) or self._workspace.name}, or allow for more (hours)",
                    metadata={"job": dg.MetadataValue.url(studio(job) or name)},
                )
            patience.sleep(min(LOOK, next(pauses)))

    def _fetch(self, folder: str, out: Path) -> None:
        """Bring what the job made; it appears whole or not at all."""
        fresh = out.with_name(f".{out.name}.fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        self._blobs.fetch(folder, fresh)
        if out.exists():
            shutil.rmtree(out)
        fresh.replace(out)

    @cached_property
    def _reached(self) -> tuple[Workspace, Account]:
        return self.reach()

    @property
    def _workspace(self) -> Workspace:
        return self._reached[0]

    @property
    def _account(self) -> Account:
        return self._reached[1]

    @cached_property
    def _blobs(self) -> PatientBlobs:
        return PatientBlobs(self._account, self.lake, self._workspace.patience)


def _version(lineage: Lineage) -> str:
    """Of the model that a run trained: short, as versions are, and found again from its lineage."""
    return lineage.training_run[:13]
