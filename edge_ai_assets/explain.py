"""The way of one score, from the global table, or from the site that made it, back to the training data and
the runs that made it. What each place knows of it is told by `explaining`."""

from __future__ import annotations

from typing import Any

from edge_ai_assets.delivery.release import Release
from edge_ai_assets.explaining import aboard, ashore, making, running
from edge_ai_assets.explaining.ashore import UnknownInsight
from edge_ai_assets.home import Home, SiteHome

__all__ = ["UnknownInsight", "explain"]

DIGITS = 18
"""Most of a sequence: it has 64 bits."""


def explain(home: Home, insight_id: str) -> dict[str, Any]:
    """Walk from a score to its origin.

    Args:
        insight_id: `SITE/SEQUENCE`.

    Returns:
        insight (as it came home; `came` says why it did not), package, ledger (what left the site for that
        package), score (the site's own record and what became of it), release, model, training_set, runs:
        Dagster run ids by what they did, those of a site with a Dagster of its own as they came home,
        completeness: how much of the site came, and which release it ran since when, and elsewhere: for what
        is None because it is not on this machine, the command that tells it there. What is None without that
        is known nowhere.

    Raises:
        UnknownInsight: no score has that id, it has not come yet, or the id has another form.
        OutboxError: the site's outbox is here and damaged.
    """
    site, slash, number = insight_id.rpartition("/")
    if not slash or not number.isascii() or not number.isdigit() or len(number) > DIGITS or not int(number):
        raise UnknownInsight(f"{insight_id!r} is no insight id: they look like bergen/812")
    if home.own_site not in (None, site):
        raise UnknownInsight(
            f"{home.root} is the home of site {home.own_site!r}: of {site!r} Azure's side knows, not this one"
        )
    sequence, log = int(number), running.log(home, site)
    completeness = _completeness(home, site)
    score = _score(home.site(site), sequence)
    insight = _insight(home, site, sequence, score, completeness["watermark"])
    package = insight.pop("package")
    name = package.get("name") if package else None
    if name and home.own_site is None:
        package |= running.departure(log, name)
    scoring = running.scoring(log, sequence)
    version = scoring.metadata.get("release") if scoring else None
    release = _release(home, site, insight.get("release") or (score or {}).get("release"), version)
    trained = {"training": release.run_id} if release and release.run_id else {}
    found = {
        "insight": insight,
        "package": package,
        "ledger": _ledger(home.site(site), package) if score else None,
        "score": score,
        "release": making.told(home, release) if release else None,
        "model": _model(home, site, release) if release else None,
        "training_set": making.training_set(home, release) if release and home.own_site is None else None,
        "runs": {**trained, **running.runs(log, sequence, name)},
        "completeness": {**completeness, "releases": running.releases(log)},
    }
    return {**found, "elsewhere": _elsewhere(home, insight_id, found)}


def _score(site: SiteHome, sequence: int) -> dict[str, Any] | None:
    """What the site's disk tells of it; None if that is not here, or the site has not scored it."""
    return aboard.score(site, sequence) if site.outbox.exists() else None


def _insight(
    home: Home, site: str, sequence: int, score: dict[str, Any] | None, watermark: str
) -> dict[str, Any]:
    """What came home of it, with its `package`; of what did not come, what is known."""
    if home.own_site is None and (came := ashore.insight(home.tables, site, sequence)):
        return came
    known = {"site": site, "sequence": sequence}
    at = home.site(site)
    if not at.outbox.exists():
        return {**known, **ashore.missing(home.tables, site, sequence, watermark)}
    if score is None:
        raise UnknownInsight(f"site {site!r} never scored {sequence:,}: {watermark}")
    return {**known, **aboard.standing(at, score)}


def _ledger(site: SiteHome, package: dict[str, Any] | None) -> dict[str, Any]:
    if package and "name" in package:
        return aboard.ledger(site, package["name"], package["digest"])
    return {"note": "nothing of it left" if package else "in which package it was is not known here"}


def _release(home: Home, site: str, image: str | None, version: int | None) -> Release | None:
    if home.own_site is None:
        return making.release(home, image, version)
    return aboard.release(home.site(site), image, version)


def _model(home: Home, site: str, release: Release) -> dict[str, Any]:
    return making.model(home, release) if home.own_site is None else aboard.model(home.site(site), release)


def _completeness(home: Home, site: str) -> dict[str, Any]:
    if home.own_site:
        return aboard.completeness(home.site(site))
    from edge_ai_assets.azure import arrivals
    from edge_ai_assets.settings import Settings

    usecase = Settings.load().load_usecase()
    marks = {mark.site: mark for mark in arrivals.watermarks(home, usecase)}
    if site not in marks:
        raise UnknownInsight(f"there is no site {site!r} here: there are {', '.join(marks)}")
    return {"watermark": marks[site].sentence}


def _elsewhere(home: Home, insight_id: str, found: dict[str, Any]) -> dict[str, str]:
    """For each part that is not here, where it is, and what to run there."""
    site, package = found["insight"]["site"], found["package"]
    if home.own_site is None and home.site(site).outbox.exists():
        return {}
    there = "on Azure's side" if home.own_site else f"in the home of site {site}"
    told = dict.fromkeys(
        (part for part, what in found.items() if what is None), f"{there}: edge-ai explain {insight_id}"
    )
    if "ledger" in told and package:
        told["ledger"] = f"{there}: edge-ai ledger show --site {site} --package {package['name']}"
    return told
