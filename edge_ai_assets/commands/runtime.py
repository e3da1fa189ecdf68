"""`edge-ai vm` and `edge-ai kubernetes`: what a site's machine or cluster needs, written where it belongs.

What is written is `runtimes`' matter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from edge_ai_assets.runtimes.interface import Release
    from edge_ai_assets.runtimes.placement import Placement

FAILED, USAGE, UNREACHABLE = 1, 2, 3
ROOT = Path("/")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 by ProtectHome and PrivateTmp

vm = typer.Typer(no_args_is_help=True, help="A site on one machine, as services of systemd.")
kubernetes = typer.Typer(no_args_is_help=True, help="A site's scoring service in a Kubernetes cluster.")
say = Console(stderr=True)

Site = Annotated[str, typer.Option("--site", help="The site's name.")]
Repository = Annotated[
    str,
    typer.Option(
        help="Where the site's nodes have its images from, HOST/PATH. The same one on every road: under "
        "another name a node pulls anew what it has."
    ),
]


@vm.command()
def install(
    site: Site,
    home: Annotated[Path, typer.Option(help="The site's EDGE_AI_HOME, in /var/lib.")] = Path(
        "/var/lib/edge-ai"
    ),
    user: Annotated[
        str, typer.Option(help="Whom the services run as; made if there is no such user.")
    ] = "edge-ai",
    linked: Annotated[
        bool, typer.Option("--linked", help="The site has a link: its Dagster may connect to other machines.")
    ] = False,
    client: Annotated[
        list[str] | None,
        typer.Option(help="Network that may ask for scores, such as 10.1.0.0/16; several times for several."),
    ] = None,
    port: Annotated[int, typer.Option(help="Of Dagster's web UI, on loopback.")] = 3000,
    into: Annotated[Path, typer.Option(help="Root of the file system; another one for an image.")] = ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files, write nothing.")] = False,
) -> None:
    """Install scoring, Dagster and its web UI as services, and start them. Again, it changes what differs.

    Before: `edge-ai site join` as root, with EDGE_AI_HOME set to the same home; the services' user gets it.
    After: `systemctl status 'edge-ai*'`. With `--into` nothing is started.
    """
    from edge_ai_assets import local
    from edge_ai_assets.home import Home
    from edge_ai_assets.runtimes import systemd

    # Not resolved: the virtual environment's own path is what finds its packages.
    python = Path(os.path.abspath(sys.executable))
    try:
        machine = systemd.Machine(site, python, local.SITE, home, user, not linked, tuple(client or ()), port)
    except ValueError as error:
        _fail(USAGE, error)
    if dry_run:
        for path, text in systemd.render(machine).items():
            sys.stdout.write(f"# {ROOT / path}\n{text}\n")
        return
    if into == ROOT:
        _ready(Home(home).own_site, site, home, python.resolve(), local.SITE)
    changed = systemd.install(machine, into)
    for path in changed:
        say.print(f"{path} was written", highlight=False, markup=False)
    if into == ROOT:
        _run("systemd-sysusers")
        _run("systemctl", "daemon-reload")
        _run("systemctl", "enable", systemd.TARGET)
        _run("systemctl", "restart" if changed else "start", systemd.TARGET)


@kubernetes.command()
def manifests(
    site: Site,
    repository: Repository,
    namespace: Annotated[str, typer.Option(help="It must be there.")] = "edge-ai",
    guard: Annotated[
        str | None,
        typer.Option(help="Secret with tls.crt, tls.key and tokens.json; else only the namespace may ask."),
    ] = None,
) -> None:
    """Print the objects that run the site's newest release, as YAML: for review, or for other tools."""
    import yaml

    from edge_ai_assets.runtimes.manifests import render

    place, release = _placed(site, repository, namespace, guard)
    sys.stdout.write(yaml.safe_dump_all(render(place, release, timeout=120), sort_keys=False, width=120))


@kubernetes.command()
def archive(
    site: Site,
    repository: Repository,
    to: Annotated[Path, typer.Option("--to", dir_okay=False, help="The file: an OCI archive.")],
) -> None:
    """Write the site's newest release as one file, for nodes without a registry.

    On each node: `ctr --namespace k8s.io images import FILE`. Or into the site's own registry:
    `skopeo copy oci-archive:FILE docker://REPOSITORY:TAG`.
    """
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.delivery.store import SiteStore
    from edge_ai_assets.runtimes.sideload import oci_archive
    from edge_ai_assets.settings import Settings

    place, release = _placed(site, repository, "edge-ai", None)
    store = SiteStore(Settings.load().folders().site(site).root)
    try:
        oci_archive(store.layout, release.release_id, place, release.version, to)
    except DeliveryError as error:
        _fail(FAILED, error)
    say.print(f"{to}: {place.image(release.release_id)}", highlight=False, markup=False, soft_wrap=True)


def _placed(site: str, repository: str, namespace: str, guard: str | None) -> tuple[Placement, Release]:
    from edge_ai_assets.runtimes.interface import Release
    from edge_ai_assets.runtimes.placement import Placement
    from edge_ai_assets.settings import Settings
    from edge_ai_assets.stack_hub import delivery

    home = Settings.load().folders().site(site)
    try:
        newest = delivery.installed(home)
        place = Placement(site, repository, namespace=namespace, guard=guard)
    except delivery.NothingInstalled as error:
        _fail(FAILED, error)
    except ValueError as error:
        _fail(USAGE, error)
    return place, Release(newest.image, newest.version, delivery.unpacked(home, newest))


def _ready(joined: str | None, site: str, home: Path, *ours: Path) -> None:
    if os.geteuid():
        _fail(
            USAGE,
            "services of the system are installed by root; --dry-run shows them, --into DIR writes them",
        )
    if shutil.which("systemctl") is None:
        _fail(UNREACHABLE, "this machine has no systemctl: it does not run systemd")
    for path in ours:
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            _fail(USAGE, f"{path} is where services cannot look: install Python and this project in /opt")
    if joined != site:
        found = "nobody's" if joined is None else f"site {joined!r}'s"
        _fail(USAGE, f"{home} is {found} home: EDGE_AI_HOME={home} edge-ai site join INVITATION comes first")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        _fail(UNREACHABLE, f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def _fail(code: int, error: object) -> NoReturn:
    say.print(f"edge-ai: {error}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
