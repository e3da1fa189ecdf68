"""`edge-ai rollout`: releases on their way to the sites: look, pause, resume, roll back.

What the commands do is `stack_hub.rollout`'s; Dagster's job `rollout_control` does the same.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ai_assets.commands import here
from edge_ai_assets.usecase import Ring

if TYPE_CHECKING:
    from edge_ai_assets.home import Home
    from edge_ai_assets.stack_hub.rollout.steps import Done

rollout = typer.Typer(
    no_args_is_help=True,
    help="Releases on their way to the sites, ring by ring: look, pause, resume, roll back.",
)

Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]
Reason = Annotated[str, typer.Option(help="Why; it is recorded.")]
Sites = Annotated[list[str] | None, typer.Option("--site", help="Only this site; several times for several.")]


@rollout.command()
def status(as_json: Json = False) -> None:
    """Where the newest release is on its way, what holds it, and what each site runs.

    Counts the evidence of the ring that the next one waits for, as the sensor does. Changes nothing.
    """
    from edge_ai_assets.stack_hub.rollout import standing

    found = standing.standing(*here.home_and_usecase())
    if as_json:
        _answer(found)
        return
    sys.stdout.write(f"{found['decision']}: {found['reason']}\n")
    for each in found["withdrawn"]:
        sys.stdout.write(
            f"release {each['release']} was withdrawn by {each['who']} on {each['at'][:10]}: {each['why']}\n"
        )
    for name, site in found["sites"].items():
        evidence = f"; {site['evidence']['says']}: {site['evidence']['because']}" if site["evidence"] else ""
        fell = f"; fell back: {site['fell_back']}" if site["fell_back"] else ""
        held = f"; {site['held']}" if site["held"] else ""
        held += f"; SERVES ON: {site['withdrawn']}" if site["withdrawn"] else ""
        release = f"release {site['release']}" if site["release"] else "nothing"
        sys.stdout.write(f"{site['ring']:<7} {name}: {release}{evidence}{held}{fell}\n")


@rollout.command()
def pause(reason: Reason, as_json: Json = False) -> None:
    """Ask no site to run a new release, until `resume`. What serves goes on."""
    from edge_ai_assets.stack_hub.rollout import steps

    home, _ = here.home_and_usecase()
    _done(steps.pause(home, who(), reason), as_json)


@rollout.command()
def resume(
    reason: Reason,
    sites: Sites = None,
    accept: Annotated[
        Ring | None,
        typer.Option(help="Go on after this ring with the newest release, though its evidence is bad."),
    ] = None,
    as_json: Json = False,
) -> None:
    """End a pause, a halt by evidence, and rollbacks; with `--site` only the rollbacks of these sites.

    Without `--accept` what evidence halted is judged anew, and may be halted again.
    """
    from edge_ai_assets.stack_hub.rollout import steps

    home, usecase = here.home_and_usecase()
    _done(steps.resume(home, usecase, who(), reason, sites=sites or [], accept=accept), as_json)


@rollout.command()
def rollback(
    reason: Reason,
    to: Annotated[
        int | None,
        typer.Option(min=1, help="The release to go back to; the one before the newest if absent."),
    ] = None,
    sites: Sites = None,
    as_json: Json = False,
) -> None:
    """Bring sites back to an older release, all of them or those named.

    A sensor deploys it within seconds while Dagster runs; where a site has the release on its disk no link is
    needed. They get no newer one before `resume`, or before one newer than all there are now is released.
    """
    from edge_ai_assets.stack_hub.rollout import steps

    home, usecase = here.home_and_usecase()
    _done(steps.roll_back(home, usecase, who(), reason, to=to, sites=sites or []), as_json)


def who() -> str:
    """Who decides something here, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, whose user may have no name
        return f"user {os.getuid()}"


def record(home: Home, done: Done) -> None:
    """Record what was decided in Dagster's log, if there is one here."""
    if home.dagster.is_dir():
        import dagster as dg

        with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
            for event in done.events:
                instance.report_runless_asset_event(event)


def _done(done: Done, as_json: bool) -> None:
    """Record what was decided, and answer with what holds now."""
    from edge_ai_assets.stack_hub.rollout import standing

    home, _ = here.home_and_usecase()
    record(home, done)
    found = standing.controls(done.state)
    if as_json:
        _answer(found)
        return
    for event in done.events[:1]:
        sys.stdout.write(f"{event.description}\n")


def _answer(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
