"""`edge-ai release`: what is released without having been trained here, and what models are released on.

The champion needs none of this: the asset release/image releases it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ai_assets.commands import here
from edge_ai_assets.commands.here import NotHere

if TYPE_CHECKING:
    from edge_ai_assets.delivery.layout import Layout
    from edge_ai_assets.delivery.release import Release
    from edge_ai_assets.home import Home
    from edge_ai_assets.usecase import UseCase

release = typer.Typer(
    no_args_is_help=True,
    help="Release a model or a container of your own; set the runtime image; withdraw a release.",
)

Image = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER:TAG", help="An OCI image layout, as `skopeo copy … oci:FOLDER:TAG` writes."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer as one JSON object.")]


@release.command()
def runtime(image: Image, as_json: Json = False) -> None:
    """Take a runtime image: what is released from now on lies on it, and any container engine runs it."""
    from edge_ai_assets.delivery import pack

    home, _ = _azure()
    source, tag = _layout(image)
    _answer({"runtime": pack.runtime(source, tag, home.registry)}, as_json)


@release.command()
def container(image: Image, as_json: Json = False) -> None:
    """Release an image that somebody else made, as it is: signed as a model is, and on the same roads.

    For sites with a container engine; one that runs models in a process refuses it.
    """
    from edge_ai_assets.delivery import pack

    home, usecase = _azure()
    source, tag = _layout(image)
    released = pack.container(source, tag, home.registry, home.keys, usecase.name, usecase.delivery.lease)
    _released(home, released, as_json)


@release.command()
def onnx(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The ONNX file.")],
    contract: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="What it takes and what its score means, JSON.")
    ],
    as_json: Json = False,
) -> None:
    """Release an ONNX file that was trained elsewhere. It is tried out first, as a site does."""
    from edge_ai_assets import usecase as usecases
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.delivery.manifest import digest_of
    from edge_ai_assets.ml.lineage import Lineage
    from edge_ai_assets.scoring.model import Model, ModelError

    home, usecase = _azure()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(model, folder / "model.onnx")
        shutil.copyfile(contract, folder / "contract.json")
        try:
            said = Model(folder).contract
        except ModelError as error:
            raise NotHere(f"{model} with {contract} cannot be released: {error}") from error
        if said.usecase != usecase.name:
            raise NotHere(f"{contract} is of use case {said.usecase!r}, this home is of {usecase.name!r}")
        case = usecases.dumps(usecase)
        (folder / "usecase.yaml").write_text(case, "utf-8")
        (folder / "metrics.json").write_text("{}\n")
        (folder / "model_card.md").write_text(
            f"# {usecase.name}\n\nTrained elsewhere; no figures came with it.\n"
        )
        Lineage("", "", digest_of(case.encode())).write(folder)
        lease = usecase.delivery.lease
        _released(home, pack.release(folder, home.registry, home.keys, usecase.name, lease), as_json)


def _azure() -> tuple[Home, UseCase]:
    home, usecase = here.home_and_usecase()
    if home.own_site:
        raise NotHere(f"{home.root} is the home of site {home.own_site!r}: releases are made on Azure's side")
    return home, usecase


def _layout(image: str) -> tuple[Layout, str]:
    from edge_ai_assets.delivery.layout import Layout

    folder, _, tag = image.rpartition(":")
    if not folder or not (Path(folder) / "oci-layout").is_file():
        raise NotHere(
            f"{image!r} is no FOLDER:TAG of an OCI image layout: `skopeo copy FROM oci:FOLDER:TAG` makes one"
        )
    return Layout(Path(folder)), tag


def _released(home: Home, made: Release, as_json: bool) -> None:
    """Publish it where azure.toml says, and tell."""
    from edge_ai_assets.azure.far_registry import FarRegistry
    from edge_ai_assets.settings import Settings

    far = FarRegistry(Settings.load().azure)
    far.publish(home)
    found = {"release": made.version, "image": made.image, "registry": far.repository or str(home.registry)}
    _answer(found, as_json)


def _answer(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name, value in found.items():
        sys.stdout.write(f"{name:<12} {value}\n")
