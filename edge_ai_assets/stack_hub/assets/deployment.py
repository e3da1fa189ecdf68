"""From a release in the registry to one that serves scores on the site."""

import dagster as dg

from edge_ai_assets import interfaces
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records
from edge_ai_assets.runtimes.interface import Running
from edge_ai_assets.stack_hub import provision
from edge_ai_assets.stack_hub.far_ends import FarEnds
from edge_ai_assets.stack_hub.fleet import Events, each_site
from edge_ai_assets.stack_hub.looking import Looking
from edge_ai_assets.usecase import Site, UseCase

WHOLE_BATCH = dg.BackfillPolicy.single_run()


@dg.asset(
    **interfaces.body(interfaces.SITE_RELEASE),
    backfill_policy=WHOLE_BATCH,
    check_specs=[
        dg.AssetCheckSpec(
            "trust_lease",
            asset=interfaces.SITE_RELEASE.key,
            description="Every site heard from Azure within its trust lease, so it can rely on what it has.",
        )
    ],
)
def release(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    far_ends: dg.ResourceParam[FarEnds],
) -> Events:
    from edge_ai_assets.stack_hub import delivery, lease, lease_sensor

    def fetch(name: str) -> dict[str, object]:
        site = provision.provision(home, name)
        fetched = delivery.fetch(site, home.registry, usecase.at(name).road, far_ends.registry())
        newest = fetched.release
        for what, reason in fetched.refused.items():
            context.log.error("site %s: %s was not taken: %s", name, what, reason)
        path = delivery.unpacked(site, newest)
        return {
            "release": newest.version,
            "image": newest.image,
            "model": newest.model or "a container",
            "training_set": newest.data_version,
            "training_run": newest.run_id,
            "bundles_refused": len(fetched.refused),
            "trust": str(lease.standing(site).state),
            "path": dg.MetadataValue.path(path),
        }

    yield from each_site(context, fetch)
    found = lease.looked_at(home, usecase, far_ends)
    yield dg.MaterializeResult(check_results=[lease_sensor.judged(found)])


@dg.asset(
    **interfaces.body(interfaces.SITE_DEPLOYMENT),
    backfill_policy=WHOLE_BATCH,
    check_specs=[
        dg.AssetCheckSpec(
            "serving",
            asset=interfaces.SITE_DEPLOYMENT.key,
            description="Every site of the use case serves scores, and says which release made them.",
        )
    ],
)
def deployment(
    context: dg.AssetExecutionContext, home: dg.ResourceParam[Home], usecase: dg.ResourceParam[UseCase]
) -> Events:
    from edge_ai_assets.runtimes.choice import runtime
    from edge_ai_assets.stack_hub import delivery
    from edge_ai_assets.stack_hub.rollout import looking as trials
    from edge_ai_assets.stack_hub.rollout import telling

    def deploy(name: str) -> dict[str, object]:
        site = home.site(name)
        former, wanted = runtime(site.root, site.name).status(), delivery.installed(site)
        champion = trials.champion(site, former, wanted.version)  # while it still answers
        service = delivery.deploy(site, wanted)
        trials.begin(site, service, champion)
        return {
            "release": service.version,
            "image": service.release_id,
            "former_release": (former.version if former else None) or 0,
            "url": dg.MetadataValue.url(service.url or ""),
            "ring": str(next((s.ring for s in usecase.sites if s.name == name), "")),
            **telling.numbers("champion", champion),
        }

    yield from each_site(context, deploy)
    looking = Looking(context.log)  # at every site: one that is odd must not fail this run of others
    states: dict[Site, Running | None] = dict.fromkeys(usecase.sites)
    for site in usecase.sites:
        with looking.at(site.name):
            states[site] = runtime(home.site(site.name).root, site.name).status()
    away = [site.name for site, state in states.items() if state is None]
    yield dg.MaterializeResult(
        check_results=[
            dg.AssetCheckResult(
                check_name="serving",
                passed=not away,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"not serving: {', '.join(away)}"
                if away
                else f"all {len(usecase.sites)} sites serve",
                metadata={
                    "serving": len(states) - len(away),
                    "not_serving": len(away),
                    "sites": records(
                        [
                            {
                                "site": site.name,
                                "ring": str(site.ring),
                                "release": state.version if state else None,
                                "url": state.url if state else "not serving",
                            }
                            for site, state in states.items()
                        ],
                        ["site", "ring", "release", "url"],
                    ),
                },
            )
        ]
    )
