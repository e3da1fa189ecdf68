"""One run for a batch of sites: what an asset did at some is kept when it fails at others.

Assets after it in the run do not start then; the sensors find what is left to do at the good sites.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import dagster as dg

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

Events = Iterator[dg.AssetMaterialization | dg.MaterializeResult[None]]
"""What the body of a site's asset yields."""


def each_site(context: dg.AssetExecutionContext, work: Callable[[str], Mapping[str, Any]]) -> Events:
    """Do the work at each site of the run; what it returns is the metadata of that site's materialization.

    To be yielded from. When all went well nothing is yielded: the step's own result, which the asset yields,
    stands for every site.

    Raises:
        dg.Failure: it failed at a site. Sites where it worked are materialized all the same.
    """
    done: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    for site in context.partition_keys:
        try:
            done[site] = work(site)
        except Exception as error:  # an error of one site is reported below, and must not stop the others
            failed[site] = str(error)
            context.log.error("site %s: %s\n%s", site, error, traceback.format_exc())
    if not failed:
        for site, metadata in done.items():
            context.add_asset_metadata(metadata, partition_key=site)
        return
    # A step that fails materializes nothing by itself, so the good sites' events are written here.
    for site, metadata in done.items():
        yield dg.AssetMaterialization(context.asset_key, partition=site, metadata=metadata)
    raise dg.Failure("; ".join(f"site {site}: {reason}" for site, reason in failed.items()))


def runs_for(sites: Sequence[str], registered: Sequence[str]) -> Iterator[dict[str, str]]:
    """Tags of the fewest runs that cover these sites: Dagster takes a range of neighbours a run, no free
    choice."""
    position = {site: place for place, site in enumerate(registered)}
    ordered = sorted((site for site in sites if site in position), key=position.__getitem__)
    start = None
    for site, following in pairwise([*ordered, None]):
        assert site is not None
        start = start or site
        if following is None or position[following] != position[site] + 1:
            yield {RANGE_START: start, RANGE_END: site}
            start = None


def alone(sites: Sequence[str]) -> Iterator[dict[str, str]]:
    """Tags of a run a site."""
    for site in sites:
        yield {RANGE_START: site, RANGE_END: site}
