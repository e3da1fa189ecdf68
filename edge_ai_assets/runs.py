"""What the sensors of both locations share: how often they look, and whether a run is under way."""

import time

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

EVERY = 3
"""Least seconds between two ticks of a sensor. The daemon looks every 5; with 5 here, every other look comes
too soon."""

RETRY_SECONDS = 600
"""After which a request whose run changed nothing, because it failed say, is made again."""


def turn() -> int:
    """A number that changes every RETRY_SECONDS, for run keys: Dagster runs a key once, failed or not."""
    return int(time.time() // RETRY_SECONDS)


def in_flight(instance: dg.DagsterInstance, *jobs: str) -> bool:
    """Whether a run of one of the jobs is queued or under way."""
    return any(instance.get_runs_count(RunsFilter(job_name=job, statuses=IN_FLIGHT)) for job in jobs)
