"""What is told about an image beside it: what is in it (SBOM), and what it was made of and how (provenance).

Both are OCI artifacts whose `subject` is the image, and are signed with the release, which names their
digests. The bill of materials has a document for the model's files and one for the environment that trained
it: the second is the same for many releases, so an update of a site leaves it out. The same inputs give the
same bytes.
Sources: CycloneDX 1.6; in-toto Statement v1 and SLSA Provenance v1 (https://slsa.dev/spec/v1.0/provenance).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_ai_assets.delivery import durable, image
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import (
    EMPTY,
    MANIFEST,
    Descriptor,
    Digest,
    Manifest,
    digest_of_chunks,
    encode,
)
from edge_ai_assets.ml import environment
from edge_ai_assets.ml.lineage import Lineage

CYCLONEDX = "application/vnd.cyclonedx+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:edge-ai-assets:training:1"
"""How the parameters of a provenance statement are to be read; another number for another way."""
MAX_ENVIRONMENT = 4 << 20


def attach(
    layout: Layout,
    subject: Digest,
    model_dir: Path,
    *,
    usecase: str,
    came_from: Lineage,
    metrics: Mapping[str, float],
) -> dict[str, Digest]:
    """Keep the SBOM and the provenance of a model's image in its layout.

    Args:
        subject: the image, in `layout`.
        model_dir: what it was built from; `environment.cdx.json` in it is taken when it is there.

    Returns:
        Digests of the artifacts' manifests, by what they are: for `release.publish`.
    """
    about = image.describe(layout, subject)
    files = {name: _digest(model_dir / name) for name in sorted(image.FILES)}
    trained_in = model_dir / environment.NAME
    bills = [sbom(usecase, files)]
    if trained_in.exists():
        bills.append(durable.read_bounded(trained_in, MAX_ENVIRONMENT))
    statement = provenance(
        subject,
        files["model.onnx"],
        usecase=usecase,
        came_from=came_from,
        metrics=metrics,
        trained_in=_digest(trained_in) if trained_in.exists() else None,
    )
    return {
        "sbom": _artifact(layout, about, CYCLONEDX, bills),
        "provenance": _artifact(layout, about, IN_TOTO, [statement]),
    }


def sbom(usecase: str, files: Mapping[str, Digest]) -> bytes:
    """The files of a model as CycloneDX JSON: digests by name."""
    components = [
        {
            "type": "machine-learning-model" if name.endswith(".onnx") else "file",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
        }
        for name, digest in files.items()
    ]
    return _json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": {"type": "container", "name": usecase}},
            "components": components,
        }
    )


def provenance(
    subject: Digest,
    model: Digest,
    *,
    usecase: str,
    came_from: Lineage,
    metrics: Mapping[str, float],
    trained_in: Digest | None,
) -> bytes:
    """An in-toto statement: from which training set, by which run and code a model came; its metrics."""
    dependencies: list[dict[str, Any]] = [
        {"name": "training set", "uri": f"urn:edge-ai-assets:training-set:{came_from.training_set}"},
        {
            "name": "edge_ai_assets",
            "uri": "urn:edge-ai-assets:code",
            "digest": {"sha256": code_version()},
        },
    ]
    if trained_in:
        dependencies.append({"name": "environment", "digest": _sha256(trained_in)})
    return _json(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": usecase, "digest": _sha256(subject)},
                {"name": "model.onnx", "digest": _sha256(model)},
            ],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD,
                    "externalParameters": {"usecase": usecase, "usecaseDigest": came_from.usecase},
                    "internalParameters": {},
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": {"id": "urn:edge-ai-assets:azure"},
                    "metadata": {"invocationId": came_from.training_run},
                    "byproducts": [
                        {
                            "name": "metrics",
                            "mediaType": "application/json",
                            "content": base64.b64encode(_json(dict(metrics))).decode(),
                        }
                    ],
                },
            },
        }
    )


def code_version() -> str:
    """SHA-256 over the names and contents of this package's Python files, hexadecimal."""
    root = Path(__file__).resolve().parents[1]
    hashed = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name, data = str(path.relative_to(root)).encode(), path.read_bytes()
        hashed.update(b"%d %b %d %b" % (len(name), name, len(data), data))
    return hashed.hexdigest()


def _artifact(layout: Layout, about: Descriptor, kind: str, documents: Sequence[bytes]) -> Digest:
    layers = tuple(layout.put(data, kind) for data in documents)
    config = layout.put(b"{}", EMPTY)
    return layout.put(encode(Manifest(config, layers, artifact_type=kind, subject=about)), MANIFEST).digest


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return digest_of_chunks(durable.chunks_of(file))


def _sha256(digest: Digest) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _json(document: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(document, order="deterministic")
