"""`edge-ai site`: how Azure and a site in a home of its own come to know each other.

What is in the files that are carried, and when one is refused, is `enrolment`'s matter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge_ai_assets.commands import here
from edge_ai_assets.settings import Settings

sites = typer.Typer(
    no_args_is_help=True,
    help="Bring a site into being that shares nothing with Azure but what is carried: invite, join, enrol.",
)
say = Console(stderr=True)

To = Annotated[
    Path, typer.Option("--to", file_okay=False, help="Folder for the file that is to be carried: a medium.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@sites.command()
def invite(
    name: Annotated[str, typer.Argument(help="The site, as the use case names it, with `road: media`.")],
    to: To,
    as_json: Json = False,
) -> None:
    """Write a site's invitation. First of three steps; done on Azure's side, once there is a release.

    The file holds the use case and the root metadata, which says whose keys sign releases. Nothing in it is
    secret, but nothing in it proves who wrote it: note the fingerprint, it is compared when the site joins.
    """
    from edge_ai_assets import enrolment
    from edge_ai_assets.delivery import pack

    home, usecase = here.azure()
    far = Settings.load().azure.registry is not None
    path = enrolment.invite(home, usecase, name, to, far_registry=far)
    root = enrolment.fingerprint(pack.root(home.registry, home.keys))
    _answer(
        {"site": name, "invitation": str(path), "root": root},
        f"carry {path.name} to the site; there: edge-ai site join {path.name} --to DIR",
        as_json,
    )


@sites.command()
def join(
    invitation: Annotated[
        Path, typer.Argument(metavar="INVITATION", help="The file that Azure's side wrote.")
    ],
    to: To,
    as_json: Json = False,
) -> None:
    """Make this home, `EDGE_AI_HOME`, the home of the invited site. Second of three steps; done on the site.

    The home need not exist. It gets keys of its own, of which the private ones never leave it, and trusts
    releases by the root metadata in the invitation, and no others. Before anything is run there, call Azure's
    side and compare the fingerprints: a key that somebody put in on the way shows in nothing else. Done
    again, the same file is written again.
    """
    from edge_ai_assets import enrolment
    from edge_ai_assets.delivery import signing
    from edge_ai_assets.stack_hub import provision

    home = Settings.load().folders()
    path = enrolment.join(home, invitation, to)
    name = home.own_site or ""
    site = home.site(name)
    found = {
        "site": name,
        "home": str(home.root),
        "enrolment": str(path),
        "root": enrolment.fingerprint(provision.root(site).read_bytes()),
        "site_key": enrolment.fingerprint(signing.load_private(provision.private_key(site)).public_key()),
        "media": str(site.media),
    }
    _answer(
        found,
        "compare root with what Azure's side shows, over the phone; if it differs, remove this\n"
        "home and ask for another invitation.\n"
        f"carry {path.name} to Azure; there: edge-ai site enrol {path.name}\n"
        "put bundles into the folder media: while edge-ai ui runs they are deployed",
        as_json,
    )


@sites.command()
def enrol(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The enrolment that the site wrote.")],
    as_json: Json = False,
) -> None:
    """Take up a site by its enrolment: packages it signs are let in. Last of three steps; on Azure's side.

    From now on a return package of the site counts only if this key signed it, so compare its fingerprint
    with what the site shows, over the phone. A site that comes with another key than before is refused, and
    the message says what to do.
    """
    from edge_ai_assets import enrolment
    from edge_ai_assets.stack_hub import provision

    home, usecase = here.azure()
    name = enrolment.enrol(home, usecase, file).site
    known = provision.known_key(home, name)
    _answer(
        {"site": name, "site_key": _fingerprint(known), "known_by": str(known)},
        "compare site_key with what the site shows, over the phone; if it differs, the file was changed\n"
        f"on its way: remove {known} and have it carried again",
        as_json,
    )


def _fingerprint(key: Path) -> str:
    from edge_ai_assets.delivery import signing
    from edge_ai_assets.enrolment import fingerprint

    return fingerprint(signing.load_public(key))


def _answer(found: dict[str, str], next_: str, as_json: bool) -> None:
    """What was done, on standard output; what to do next, for people only, on standard error."""
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:<12} {value}\n")
    say.print(next_, highlight=False, markup=False, soft_wrap=True)
