"""The job by which a release is withdrawn in the web UI. What it does is `stack_hub.rollout.steps`', as for
all that people decide about releases; `edge-ai release withdraw` does the same."""

import dagster as dg
from pydantic import Field

from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.home import Home
from edge_ai_assets.usecase import UseCase


class Withdraw(dg.Config):
    """Which release is bad, and why."""

    release: int = Field(description="Its number. It is taken back everywhere, and for good.")
    reason: str = Field(description="Why. Every site is told, and it is recorded.")
    who: str = Field("an operator", description="Who decides this: the web UI knows no names.")


@dg.op(description="Withdraws a release, publishes that, and records who did it and why.")
def withdraw(
    context: dg.OpExecutionContext,
    config: Withdraw,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    far_registry: dg.ResourceParam[FarRegistry],
) -> None:
    from edge_ai_assets.delivery.errors import UnreachableError
    from edge_ai_assets.stack_hub.rollout import steps

    done = steps.withdraw(home, usecase, config.who, config.reason, release=config.release)
    for event in done.events:
        context.log_event(event)
        context.log.info(event.description)
    try:
        far_registry.publish(home)
    except UnreachableError as error:  # it is withdrawn, bundles can be made; `lease_renewed` pushes it later
        context.log.warning("that is not published yet: %s", error)


@dg.job(
    description="Take a release back, for good: no site that hears of it installs it, or goes back to it. "
    "docs/rollout.md says what each site does then."
)
def withdraw_release() -> None:
    withdraw()
