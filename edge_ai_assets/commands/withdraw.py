"""`edge-ai release withdraw`: a release is found to be bad, and no site is to install it any more.

What follows is `delivery.withdrawing`'s and `stack_hub.rollout.steps`'; Dagster's job `withdraw_release` does
the same.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ai_assets.commands import here

if TYPE_CHECKING:
    from edge_ai_assets.home import Home

FEWEST = 8
"""Characters of a digest that tell one image from another."""


def withdraw(
    release: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER|DIGEST", help="The release's number, or its image's digest, shortened."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; every site is told, and it is recorded.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")] = False,
) -> None:
    """Take a release back, for good: no site that hears of it installs it, or goes back to it.

    A site that runs it is told, goes back to the newest release before it that was not withdrawn, and until
    it has one goes on scoring. Sites without a link hear of it by the next bundle.
    """
    from edge_ai_assets.azure.far_registry import FarRegistry
    from edge_ai_assets.commands.rollout import record, who
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.resources.identity.secret import SecretError
    from edge_ai_assets.settings import Settings
    from edge_ai_assets.stack_hub.rollout import steps

    home, usecase = here.home_and_usecase()
    if home.own_site:
        raise here.NotHere(
            f"{home.root} is the home of site {home.own_site!r}: releases are withdrawn on Azure's side; "
            "`edge-ai rollout rollback` keeps this site from one"
        )
    number = _number(home, release)
    done = steps.withdraw(home, usecase, who(), reason, release=number)
    record(home, done)
    far, later = FarRegistry(Settings.load().azure), None
    try:
        far.publish(home)
    except (DeliveryError, SecretError) as error:  # it is withdrawn, and `lease_renewed` publishes that
        later = str(error)
    newest = pack.newest(home.registry, home.keys)
    found = {
        "withdrawn": number,
        "newest": newest.version if newest else None,
        "registry": far.repository or str(home.registry),
        "not_published_yet": later,
    }
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    sys.stdout.write(f"{done.events[0].description}\n")
    sys.stdout.write(f"the newest release is {newest.version if newest else 'none'} now\n")
    if later:
        sys.stdout.write(f"{far.repository} does not have it yet, Dagster publishes it later: {later}\n")
    sys.stdout.write("sites without a link hear of it by a bundle: `edge-ai bundle build`\n")
    sys.stdout.write("the next promoted model is released as ever: `edge-ai rollout pause` keeps it back\n")


def _number(home: Home, name: str) -> int:
    """The release that people call by its number, or by its image.

    Raises:
        NotHere: none is called that, or several are.
    """
    from edge_ai_assets.delivery import pack

    if name.isdecimal() and len(name) < FEWEST:
        return int(name)
    short = name.removeprefix("sha256:")
    known = [] if len(short) < FEWEST else pack.known(home.registry, home.keys)
    found = [each.version for each in known if each.image.removeprefix("sha256:").startswith(short)]
    if len(found) != 1:
        raise here.NotHere(
            f"{name!r} is {len(found)} releases: give a release's number, or at least {FEWEST} characters of "
            "the digest of its image"
        )
    return found[0]
