"""Checks of this machine: home, disk, use case, trust leases, the sites' runtimes. No service is asked, but
a runtime's."""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from pathlib import Path

from edge_ai_assets.doctor import causes
from edge_ai_assets.doctor.finding import Cause, Check, Finding
from edge_ai_assets.home import Home, SiteHome
from edge_ai_assets.settings import Settings

ENOUGH_BYTES = 1 << 30
"""Free for a home: a release takes a few hundred MB, and is there twice while it is installed."""


def home(home: Home) -> Finding:
    """That it can be written to, and is not full."""
    place = home.root
    there = next(each for each in (place, *place.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        said = f"{there} cannot be written to ({error.strerror}): correct its owner, or set EDGE_AI_HOME"
        return Finding("home", str(place), Cause.HERE, said)
    if free < ENOUGH_BYTES:
        said = f"{free / 1e6:,.0f} MB are free, {ENOUGH_BYTES / 1e6:,.0f} are needed: make room"
        return Finding("home", str(place), Cause.HERE, said)
    new = "" if there == place else "is not there yet and can be made, "
    return Finding("home", str(place), detail=f"{new}{free / 1e9:,.0f} GB free")


def certificates(service: str, ca: Path, check: Check) -> Finding:
    """What a check finds, if the certificates that it needs can be used."""
    try:
        ssl.create_default_context(cafile=ca)
    except OSError as error:
        said = f"`ca` cannot be used ({error.strerror or 'it holds no certificate'}): it is to be a PEM file"
        return Finding(service, str(ca), Cause.SETTINGS, said)
    return check()


def usecase(settings: Settings) -> Finding:
    from edge_ai_assets.usecase import UseCaseError

    try:
        found = settings.load_usecase()
    except UseCaseError as error:
        return Finding("use case", "", Cause.SETTINGS, "; ".join(str(error).splitlines()))
    return Finding("use case", found.name, detail=f"{len(found.features)} features, {len(found.sites)} sites")


def lease(sites: list[SiteHome]) -> Finding:
    """That no site's trust is over, nor its clock behind what was signed."""
    from edge_ai_assets.delivery.errors import DeliveryError
    from edge_ai_assets.stack_hub.lease import standing

    bad = []
    for site in sites:
        try:
            found = standing(site)
        except DeliveryError as error:
            bad.append(f"{site.name}: {error}")
        else:
            bad += [] if found.good else [found.sentence]
    if bad:
        return Finding("trust", f"{len(bad)} of {len(sites)} sites", Cause.HERE, "; ".join(bad[:5]))
    return Finding("trust", f"{len(sites)} sites", detail="no lease is over")


def runtime(site: SiteHome) -> Finding:
    """That what `runtime.toml` names can be asked for the site's service."""
    from edge_ai_assets.runtimes.choice import FILE, ChoiceError, runtime
    from edge_ai_assets.runtimes.cluster import ClusterError, Unreachable

    where = os.fspath(site.root / FILE)
    try:
        found = runtime(site.root, site.name).status()
    except ChoiceError as error:
        return Finding(f"runtime of {site.name}", where, Cause.SETTINGS, str(error))
    except Unreachable as error:
        cause, _ = causes.of_network(error) or (Cause.TIMEOUT, "")
        return Finding(f"runtime of {site.name}", where, cause, str(error))
    except ClusterError as error:
        return Finding(f"runtime of {site.name}", where, Cause.CREDENTIAL, str(error))
    said = f"serves release {found.version}" if found else "answers, no release is deployed"
    return Finding(f"runtime of {site.name}", where, detail=said)
