"""From insights to what left the site, under the egress policy."""

from functools import partial

import dagster as dg

from edge_ai_assets import interfaces
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records, table
from edge_ai_assets.stack_hub.assets.deployment import WHOLE_BATCH
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.fleet import Events, each_site
from edge_ai_assets.usecase import Road, UseCase


@dg.asset(**interfaces.body(interfaces.SITE_EGRESS), backfill_policy=WHOLE_BATCH)
def egress(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[Home], usecase: dg.ResourceParam[UseCase]
) -> Events:
    from edge_ai_assets.stack_hub import events, returning
    from edge_ai_assets.stack_hub.scoring import deployed_usecase

    def pack(name: str) -> dict[str, object]:
        site = home.site(name)
        # In a home with both sides Azure's graph has these events already.
        own = partial(events.source, context.instance, name) if home.own_site else None
        done = returning.pack_all(site, own, queued=usecase.at(name).road is Road.QUEUE)
        egress = deployed_usecase(site).egress
        return {
            "packages": len(done.packages),
            "package_names": done.packages,
            "packed_rows": done.rows,
            "packed_feedback": done.feedback,
            "withheld_rows": done.withheld_rows,
            "withheld_for": table(done.withheld, "reason", "rows"),
            "bytes": done.bytes,
            "lineage_events": done.lineage,
            "not_packed": done.stopped or "",
            "pruned_rows": done.room.pruned,
            "expired_rows": done.room.expired,
            "dropped_rows": done.room.withheld,
            "pruned_packages": done.room.packages,
            "removed": records(returning.removed(site), ["state", "kind", "reason", "rows", "at"]),
            "policy": done.policy,
            "kinds_that_leave": ", ".join(egress.kinds) or "none",
            "fields_that_leave": records(
                [
                    {"field": field.name, "leaves": field.leaves, "digits": field.digits}
                    for field in egress.fields
                ],
                ["field", "leaves", "digits"],
            ),
        }

    yield from each_site(context, pack)
    yield dg.MaterializeResult()


@dg.asset(
    **interfaces.body(interfaces.SITE_UPLOAD),
    backfill_policy=WHOLE_BATCH,
    check_specs=[
        dg.AssetCheckSpec(
            "conservation",
            asset=interfaces.SITE_UPLOAD.key,
            description="At every site: scored = uploaded + withheld + quarantined + expired + pending.",
        )
    ],
)
def upload(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    far_ends: dg.ResourceParam[FarEnds],
) -> Events:
    from edge_ai_assets.stack_hub import returning

    def send(name: str) -> dict[str, object]:
        left = returning.let_leave(home.site(name), usecase, home.uplink, far_ends)
        for reason in left.lost.values():
            context.log.error("site %s: %s", name, reason)
        now = returning.as_dict(returning.counts(home.site(name)))
        return {
            "road": str(usecase.at(name).road),
            "packages": len(left.names),
            "package_names": left.names,
            "bytes": left.bytes,
            "acknowledged_packages": left.acknowledged,
            "waiting_packages": left.waiting,
            "interrupted": left.interrupted or "no",
            "lost_packages": "; ".join(left.lost.values()) or "none",
            **{f"outbox_{part}": rows for part, rows in now.items()},
        }

    yield from each_site(context, send)
    # Row by row where something was sent, since that takes long; from what was added up elsewhere.
    counted = {
        site.name: (returning.recount if site.name in context.partition_keys else returning.counts)(
            home.site(site.name)
        )
        for site in usecase.sites
    }
    broken = [name for name, counts in counted.items() if not counts.conserved]
    rows = [
        {"site": name, **returning.as_dict(counts), "holds": counts.conserved}
        for name, counts in counted.items()
    ]
    columns = ["site", "scored", "uploaded", "withheld", "quarantined", "expired", "pending", "holds"]
    yield dg.MaterializeResult(
        check_results=[
            dg.AssetCheckResult(
                check_name="conservation",
                passed=not broken,
                description=f"does not hold at {', '.join(broken)}"
                if broken
                else f"holds at all {len(counted)} sites",
                metadata={
                    "sites_broken": len(broken),
                    "scored": sum(counts.scored for counts in counted.values()),
                    "pending": sum(counts.pending for counts in counted.values()),
                    "sites": records(rows, columns),
                },
            )
        ]
    )
