"""Decisions about releases as observations in Dagster's log, with their reason.

Of a release as a whole on release/image, of one site on site/deployment. Which are told, and that each is
told once, is the callers' matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.metadata import records
from edge_ai_assets.stack_hub.rollout.evidence import Evidence, Verdict
from edge_ai_assets.stack_hub.rollout.rings import Decision

ROLLOUT = "rollout"
"""Metadata that says what was decided: one word, which leaves a site with its lineage; reasons stay."""


def decided(decision: Decision) -> dg.AssetObservation:
    """What was decided of a release."""
    return of_release(
        str(decision.kind),
        decision.release,
        decision.reason,
        {
            "ring": str(decision.ring or ""),
            **({"sites": ", ".join(decision.sites)} if decision.sites else {}),
            **({"evidence": _table(decision.judged)} if decision.judged else {}),
        },
    )


def of_release(
    word: str, release: int, reason: str, more: Mapping[str, Any] | None = None
) -> dg.AssetObservation:
    """Something that was decided of a release as a whole."""
    metadata = {ROLLOUT: word, "release": release, "reason": reason, **(more or {})}
    return dg.AssetObservation(keys.IMAGE, description=reason, metadata=metadata)


def word(event: dg.AssetObservation) -> str | None:
    """What an observation says was decided; None for one that says something else."""
    found = event.metadata.get(ROLLOUT)
    return None if found is None else str(found.value)


def of_site(
    word: str, site: str, release: int, reason: str, more: Mapping[str, Any] | None = None
) -> dg.AssetObservation:
    """Something that was decided of, or happened to, a release at one site."""
    metadata = {ROLLOUT: word, "release": release, "reason": reason, **(more or {})}
    return dg.AssetObservation(keys.SITE_DEPLOYMENT, partition=site, description=reason, metadata=metadata)


def judged(
    site: str, release: int, verdict: Verdict, found: Evidence, champion: Evidence | None
) -> dg.AssetObservation:
    """What a site said of a release, beside the one before it."""
    more = {**numbers("challenger", found), **numbers("champion", champion)}
    return of_site(f"evidence_{verdict.word}", site, release, verdict.reason, more)


def numbers(who: str, found: Evidence | None) -> dict[str, Any]:
    """Evidence as metadata; what is not known is left out."""
    if found is None:
        return {}
    values = {
        "release": found.version,
        "rows": found.rows,
        "anomaly_rate": found.anomaly_rate,
        "requests": found.requests,
        "failure_rate": found.failure_rate,
        "p95_seconds": found.p95,
    }
    return {f"{who}_{name}": value for name, value in values.items() if value is not None}


def _table(judged: Mapping[str, Verdict]) -> dg.TableMetadataValue:
    rows = [{"site": site, "says": str(each.word), "because": each.reason} for site, each in judged.items()]
    return records(rows, ["site", "says", "because"])
