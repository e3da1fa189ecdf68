"""`edge-ai doctor`. What is checked, and how, is the package `doctor`'s matter."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from edge_ai_assets.doctor.finding import Finding

FAILED, UNREACHABLE = 1, 3


def doctor(
    deadline: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds after which a check that has no answer has failed.")
    ] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")] = False,
) -> None:
    """Ask each configured service once, and say what is wrong with it and what to do.

    Services are configured by `azure.toml` and `stack_hub.toml` in the home, or by the environment. Exit code
    0 when all is fine, 1 when something must be put right, 3 when all that is wrong is that a service is out
    of reach.
    """
    from edge_ai_assets.doctor.examine import checks, examine
    from edge_ai_assets.doctor.finding import Cause, Finding, State
    from edge_ai_assets.settings import Settings
    from edge_ai_assets.settings_errors import SettingsError

    # What it warns of is a finding already, in one line.
    logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
    services = 0
    try:
        settings = Settings.load()
    except SettingsError as error:
        found = [Finding("settings", "", Cause.SETTINGS, line) for line in str(error).splitlines()]
    else:
        todo = checks(settings)
        services = sum("." in name for name in todo)
        found = examine(todo, deadline)
    states = {each.state for each in found}
    if as_json:
        rows = [
            {
                "service": each.service,
                "where": each.where,
                "state": str(each.state),
                "cause": each.cause and str(each.cause),
                "said": each.said,
            }
            for each in found
        ]
        answer = {"fine": states <= {State.FINE}, "services": services, "checks": rows}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        _show(found, services)
    if State.FAILED in states:
        sys.exit(FAILED)
    if State.UNREACHABLE in states:
        sys.exit(UNREACHABLE)


def _show(found: list[Finding], services: int) -> None:
    """A line a finding."""
    say = Console(highlight=False, soft_wrap=True)
    for each in found:
        colour = {"fine": "green", "failed": "red"}.get(str(each.state), "yellow")
        where = f" {each.where}:" if each.where else ""
        say.print(f"[{colour}]{each.state}[/] [bold]{each.service}[/]{escape(where)} {escape(each.said)}")
    if not services:
        say.print("No service is configured: all are embedded, in the home. docs/settings.md says how to.")
