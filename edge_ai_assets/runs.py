"""Questions about runs that the sensors of both locations ask."""

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def in_flight(instance: dg.DagsterInstance, *jobs: str) -> bool:
    """Whether a run of one of the jobs is queued or under way."""
    return any(instance.get_runs_count(RunsFilter(job_name=job, statuses=IN_FLIGHT)) for job in jobs)
