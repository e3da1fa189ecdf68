"""`edge-ai storage`: Azure's storage account by hand, where azure.toml names one.

In normal operation nobody needs it but for a new site: assets mirror what they make.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_ai_assets.commands import here
from edge_ai_assets.commands.here import NotHere

if TYPE_CHECKING:
    from edge_ai_assets.resources.mirror.home_mirror import HomeMirror

storage = typer.Typer(
    no_args_is_help=True,
    help="Azure's storage account: push this home to it, pull a home from it, let a site send to it.",
)
say = Console(stderr=True)
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]
RIGHTS = "rcw"
"""Of a site: its packages and their acknowledgement. Neither list nor delete."""


@storage.command()
def push(as_json: Json = False) -> None:
    """Bring all of this home's lake and models, and the report, to the storage account.

    Assets do so with what they make; this is for a home that is older than its account. What is there is not
    sent again, so it can be stopped and started at any time.
    """
    mirror = _mirror()
    done = mirror.push(*mirror.paths)
    found = {name: getattr(value, "value", value) for name, value in done.items()}
    if behind := found.pop("mirror_behind", None):
        from edge_ai_assets.returns.road.link import LinkDown

        raise LinkDown(behind)
    _answer(found, as_json)


@storage.command()
def pull(as_json: Json = False) -> None:
    """Bring lake and models from the storage account into this home, which has none: after a disaster, or on
    a new machine.

    Each file is checked by its digest. What is here already is not fetched again, so it can be stopped and
    started at any time; a file that is here and differs is never written over.
    """
    done = _mirror().pull()
    for name, reason in done.left:
        say.print(f"{name} stays there: {reason}", highlight=False, markup=False, soft_wrap=True)
    _answer({"files": done.files, "bytes": done.bytes, "left": [name for name, _ in done.left]}, as_json)


@storage.command()
def grant(
    site: Annotated[str, typer.Argument(help="The site, as the use case names it.")],
    to: Annotated[
        Path, typer.Option("--to", file_okay=False, help="Folder for the file with the signature.")
    ],
    days: Annotated[int, typer.Option(min=1, max=365, help="For how long it counts.")] = 90,
    as_json: Json = False,
) -> None:
    """Sign a site's access to the uplink's container, for the section uplink of its stack_hub.toml.

    It allows to read, create and write blobs there by their names, not to list or delete them. The file is a
    secret: whoever has it may send packages, though none that counts, since packages are signed by the site.
    """
    from azure.core.credentials import AzureNamedKeyCredential

    from edge_ai_assets.resources import configured
    from edge_ai_assets.resources.storage.hub_sas import container_sas
    from edge_ai_assets.settings import Settings

    here.site(site)
    settings = Settings.load()
    section, account = settings.azure.storage, configured.storage(settings.azure)
    if section is None or account is None:
        raise NotHere(f"no storage account is configured: write [storage] into {settings.home}/azure.toml")
    if not isinstance(account.credential, AzureNamedKeyCredential):
        raise NotHere(
            "a signature is made with the account's key, and azure.toml's [storage] has another credential: "
            "give the site an application of Microsoft Entra, or set key there for this command"
        )
    until = datetime.now(UTC) + timedelta(days=days)
    secret = container_sas(
        account.credential, section.uplink, RIGHTS, until, https=account.endpoint.startswith("https:")
    )
    path = to / f"{site}.uplink.sas"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    _answer({"site": site, "signature": str(path), "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}, as_json)
    say.print(
        f"carry {path.name} to the site as a secret, and write into its stack_hub.toml:\n"
        f'[uplink]\nendpoint = "{account.endpoint}"\ncontainer = "{section.uplink}"\n'
        f'credential = {{ sas = {{ file = "/run/secrets/{path.name}" }} }}',
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _mirror() -> HomeMirror:
    from edge_ai_assets.resources.mirror.home_mirror import HomeMirror
    from edge_ai_assets.settings import Settings

    settings = Settings.load()
    home = settings.folders()
    if home.own_site:
        raise NotHere(f"{home.root} is the home of site {home.own_site!r}: it sends packages, nothing else")
    if settings.azure.storage is None:
        raise NotHere(f"no storage account is configured: write [storage] into {home.root}/azure.toml")
    return HomeMirror(home, settings.azure)


def _answer(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:<14} {value}\n")
