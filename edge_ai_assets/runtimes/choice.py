"""Which runtime a site has: what `runtime.toml` in its folder says, a supervised process if there is none.

It is the site's own matter, as `service.toml` is: no use case and no release says it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_ai_assets.runtimes.interface import Runtime
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.runtimes.process import ProcessRuntime

FILE = "runtime.toml"
KIND, KUBECONFIG, CONTEXT = "kind", "kubeconfig", "context"


class ChoiceError(ValueError):
    """A runtime.toml that cannot be used; the message names the setting and says what would do."""


def runtime(folder: Path, site: str) -> Runtime:
    """The runtime of the site in this folder. Nothing is asked of a cluster yet.

    Raises:
        ChoiceError: runtime.toml is no TOML, a setting is unknown, missing or of another type, or would be
            refused by Kubernetes.
        ClusterError: its kubeconfig leads to no cluster.
    """
    path = folder / FILE
    kind, found = _read(path)
    if kind == "process":
        _only(path, found, {})
        return ProcessRuntime(folder, site)
    return _kubernetes(path, site, found)


def runs_images(folder: Path) -> bool:
    """Whether a container engine runs the releases of the site in this folder.

    Raises:
        ChoiceError: as `runtime`.
    """
    return _read(folder / FILE)[0] != "process"


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The kind, and the other settings."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return "process", {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ChoiceError(f"{path} is no TOML: {error}") from error
    kind = found.pop(KIND, None)
    if kind not in ("process", "kubernetes"):
        raise ChoiceError(f"{path}: kind must be 'process' or 'kubernetes', it is {kind!r}")
    return kind, found


def _kubernetes(path: Path, site: str, found: dict[str, Any]) -> Runtime:
    from edge_ai_assets.runtimes.cluster import connect
    from edge_ai_assets.runtimes.kubernetes import KubernetesRuntime

    kinds = {
        each.name: int if each.type == "int" else str for each in fields(Placement) if each.name != "site"
    }
    _only(path, found, kinds | {KUBECONFIG: str, CONTEXT: str})
    kubeconfig, context = found.pop(KUBECONFIG, None), found.pop(CONTEXT, None)
    if "repository" not in found:
        raise ChoiceError(f"{path}: repository is missing: where the site's nodes have its images from")
    try:
        place = Placement(site, **found)
    except ValueError as error:
        raise ChoiceError(f"{path}: {error}") from error
    where = None if kubeconfig is None else path.parent / kubeconfig
    return KubernetesRuntime(connect(place.namespace, kubeconfig=where, context=context), place)


def _only(path: Path, found: dict[str, Any], kinds: Mapping[str, type]) -> None:
    """Refuse settings that are not known, or of another type."""
    for name, value in found.items():
        if name not in kinds:
            raise ChoiceError(f"{path}: {name!r} is not known, only {', '.join([KIND, *kinds])}")
        if type(value) is not kinds[name]:
            wanted = "a whole number" if kinds[name] is int else "text"
            raise ChoiceError(f"{path}: {name} must be {wanted}, it is {value!r}")
