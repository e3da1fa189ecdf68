"""The job by which operators pause, resume and roll back in the web UI. What it does is `rollout.steps`'."""

from enum import Enum

import dagster as dg
from pydantic import Field

from edge_ai_assets.home import Home
from edge_ai_assets.stack_hub.rollout import steps
from edge_ai_assets.stack_hub.rollout.control import RolloutError
from edge_ai_assets.usecase import Ring, UseCase


class Action(Enum):
    """By their names, as Dagster shows them."""

    PAUSE = "pause"
    RESUME = "resume"
    ROLL_BACK = "roll back"


MEANT = {Action.PAUSE: (), Action.RESUME: ("sites", "accept"), Action.ROLL_BACK: ("release", "sites")}
"""The fields that say something for an action."""


class RolloutControl(dg.Config):
    """What is to be done about releases on their way to the sites."""

    action: Action = Field(
        description="`PAUSE`: no site is asked to run a new release. `RESUME`: ends a pause, a halt by "
        "evidence, and rollbacks. `ROLL_BACK`: sites run an older release until `RESUME`, or until a release "
        "comes that is newer than all there are now."
    )
    reason: str = Field(description="Why. It is recorded with every event that follows.")
    who: str = Field("an operator", description="Who decides this: the web UI knows no names.")
    release: int | None = Field(
        None, description="For `ROLL_BACK`: the release to go back to; the one before the newest when absent."
    )
    sites: list[str] = Field(
        [], description="For `ROLL_BACK` and `RESUME`: only these sites. For `RESUME`: only their rollbacks."
    )
    accept: Ring | None = Field(
        None,
        description="For `RESUME`: go on after this ring with the newest release, though its evidence is bad "
        "or missing.",
    )


@dg.op(description="Pauses, resumes or rolls back, and records who did it and why.")
def control_rollout(
    context: dg.OpExecutionContext,
    config: RolloutControl,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
) -> None:
    for name in ("release", "sites", "accept"):
        if getattr(config, name) and name not in MEANT[config.action]:
            raise RolloutError(f"field {name} means nothing for {config.action.name}: leave it out")
    if config.action is Action.PAUSE:
        done = steps.pause(home, config.who, config.reason)
    elif config.action is Action.RESUME:
        done = steps.resume(
            home, usecase, config.who, config.reason, sites=config.sites, accept=config.accept
        )
    else:
        done = steps.roll_back(
            home, usecase, config.who, config.reason, to=config.release, sites=config.sites
        )
    for event in done.events:
        context.log_event(event)
        context.log.info(event.description)


@dg.job(
    description="Pause releases on their way to the sites, resume them, or roll sites back. The launchpad "
    "says what each field means; docs/rollout.md what follows."
)
def rollout_control() -> None:
    control_rollout()
