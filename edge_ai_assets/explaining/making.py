"""What Azure's side tells of a release: its statement, the model's folder, the training set."""

from __future__ import annotations

from typing import Any

from edge_ai_assets.delivery import pack
from edge_ai_assets.delivery.release import Release
from edge_ai_assets.explaining.aboard import picked
from edge_ai_assets.home import Home

NOT_HERE = "not trained here: somebody else made the model or the container"
NOT_KEPT = "no longer kept here"


def release(home: Home, image: str | None, version: int | None) -> Release | None:
    """The release of an image, or else of that version; None if the registry has none."""
    return picked(pack.known(home.registry, home.keys), image, version)


def told(home: Home, release: Release) -> dict[str, Any]:
    """What a release's signed statement says, and on Azure's side, whether it was withdrawn."""
    withdrawn = {} if home.own_site else pack.withdrawn(home.registry, home.keys)
    return {
        "version": release.version,
        "image": release.image,
        "model": release.model,
        "created": release.created.isoformat(),
        "run_id": release.run_id,
        "data_version": release.data_version,
        "withdrawn": str(withdrawn[release.version]) if release.version in withdrawn else None,
    }


def model(home: Home, release: Release) -> dict[str, Any]:
    """Where the model was trained, and its figures: those beside it, or else those that were signed."""
    from edge_ai_assets.ml import evaluation

    if not release.run_id:
        return {"folder": NOT_HERE, "metrics": release.metrics}
    folder = home.trained(release.run_id)
    if not (folder / "metrics.json").is_file():
        return {"folder": f"{folder}: {NOT_KEPT}", "metrics": release.metrics}
    return {"folder": str(folder), "metrics": evaluation.recorded(folder)}


def training_set(home: Home, release: Release) -> dict[str, Any]:
    """What the model was trained on; no rows if that is not here."""
    import pyarrow.parquet as parquet

    version = release.data_version
    if not version:
        return {"version": None, "path": NOT_HERE, "rows": None}
    path = home.training_sets / f"{version}.parquet"
    if not path.is_file():
        return {"version": version, "path": f"{path}: {NOT_KEPT}", "rows": None}
    return {"version": version, "path": str(path), "rows": parquet.read_metadata(path).num_rows}
