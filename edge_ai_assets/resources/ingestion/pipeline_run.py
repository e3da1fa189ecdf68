"""One run of Data Factory's pipeline for a Dagster run: started once, followed to its end, cancelled with it.

The routes and what they answer are `data_factory`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from edge_ai_assets.resources.calling.patience import Patience, Refused, Unavailable
from edge_ai_assets.resources.ingestion.data_factory import DataFactory, PipelineRun

LONGEST = 12 * 3600.0
"""Seconds after which a run is cancelled: twelve hours, as long as a copy activity may take by default."""
BACK = timedelta(days=1)
"""How far back a run for the same Dagster run is looked for, and how far our clock may be wrong."""
POLL = Patience(first=5.0, most=30.0)
TOLD = 10
"""Activities of a failed run that its sentence is about."""

Log = Callable[[str], None]


class PipelineFailed(Exception):
    """A run came to an end and did not succeed."""


def run(
    factory: DataFactory, run_id: str, kin: Collection[str], log: Log, longest: float = LONGEST
) -> PipelineRun:
    """Start a run, or find the one that was started for this Dagster run, and follow it to its end.

    A Dagster run that was started again takes up what its former worker left: a run of the pipeline with its
    mark, under way or done. One that re-executes another takes up only what is still under way: what is done
    was that one's. Interrupted, it cancels the pipeline's run.

    Args:
        factory: whose patience bounds each outage.
        run_id: of the Dagster run.
        kin: ids of the Dagster runs that it re-executes.
        log: told what happens, in sentences.
        longest: seconds after which the pipeline's run is cancelled.

    Raises:
        PipelineFailed: the run failed, was cancelled, or took too long and was cancelled by us.
        Unavailable: the service was out of reach for longer than patience lasts; a run that was started goes
            on there, and executing this again follows it.
        Refused: the service refuses.
    """
    found = ""
    try:
        found = _started(factory, run_id, kin, log)
        return _followed(factory, found, log, longest)
    except BaseException as end:
        if not isinstance(end, Exception):  # an interrupt: whoever ends the run means the pipeline too
            _cancelled(factory, found, run_id, log)
        raise


def _started(factory: DataFactory, run_id: str, kin: Collection[str], log: Log) -> str:
    """Id of the pipeline's run for this Dagster run."""

    def attempt() -> str:
        now = datetime.now(UTC)
        for each in reversed(factory.updated(now - BACK, now + BACK)):
            ours = each.mark == run_id and (each.under_way or each.status == "Succeeded")
            if ours or (each.mark in kin and each.under_way):
                log(f"run {each.run_id} of pipeline {factory.pipeline} was started before: following it")
                return each.run_id
        try:
            started = factory.start(run_id)
        except Unavailable as outage:
            if outage.done:
                log(f"{outage}; it may have been started, and is looked for")
            raise
        log(f"run {started} of pipeline {factory.pipeline} was started")
        return started

    return factory.patience.persist(attempt)


def _followed(factory: DataFactory, run_id: str, log: Log, longest: float) -> PipelineRun:
    patience = factory.patience
    end = patience.clock() + longest
    status = ""
    for pause in POLL.pauses():
        state = patience.persist(lambda: factory.state(run_id))
        if state.status != status:
            status = state.status
            log(f"run {run_id} of pipeline {factory.pipeline}: {status}")
        if status == "Succeeded":
            return state
        if not state.under_way:
            raise PipelineFailed(_why(factory, state))
        if patience.clock() + pause > end:
            factory.cancel(run_id)
            raise PipelineFailed(
                f"run {run_id} of pipeline {factory.pipeline} was cancelled: it took more than "
                f"{longest / 3600:g} hours"
            )
        patience.sleep(pause)
    raise AssertionError("pauses have no end")


def _cancelled(factory: DataFactory, found: str, mark: str, log: Log) -> None:
    """Cancel a run; where its id was not heard yet, those with our mark that the list shows."""
    try:
        now = datetime.now(UTC)
        marked = [] if found else factory.updated(now - BACK, now + BACK)
        for each in (
            [found] if found else [run.run_id for run in marked if run.mark == mark and run.under_way]
        ):
            factory.cancel(each)
            log(f"run {each} of pipeline {factory.pipeline} was cancelled")
    except (Unavailable, Refused) as error:
        log(f"run {found or 'without an answer'} of pipeline {factory.pipeline} may go on: {error}")


def _why(factory: DataFactory, state: PipelineRun) -> str:
    """A sentence on a run that did not succeed, with what its activities say."""
    problems = [f"{each.activity_name}: {each.problem}" for each in factory.activities(state) if each.problem]
    more = [f"{len(problems) - TOLD} more activities failed"] if len(problems) > TOLD else []
    said = "; ".join([*problems[:TOLD], *more]) or state.says or "no reason given"
    return f"run {state.run_id} of pipeline {state.pipeline_name}: {state.status}: {said}"
