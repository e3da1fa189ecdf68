"""The Stack Hub code location. Loads without scikit-learn and azure-ai-ml."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub import automation, forwarding_sensor, lease_sensor, waiting
from edge_ai_assets.stack_hub.assets import deployment, returns, scores
from edge_ai_assets.usecase import Road


def build_defs(
    *, settings: Settings | None = None, resources: Mapping[str, object] | None = None
) -> dg.Definitions:
    """The location's definitions; `resources` override the ones made from `settings`."""
    settings = settings or Settings.load()
    home, usecase = settings.folders(), settings.load_usecase()
    if own := home.own_site:
        usecase = usecase.alone(own)
    deploy = dg.define_asset_job("deploy_sites", selection=[keys.SITE_RELEASE, keys.SITE_DEPLOYMENT])
    restart = dg.define_asset_job("restart_sites", selection=[keys.SITE_DEPLOYMENT])
    home_again = [keys.SITE_INSIGHTS, keys.SITE_EGRESS, keys.SITE_UPLOAD]
    score = dg.define_asset_job("score_sites", selection=[keys.SITE_SCORES, *home_again])
    insights = dg.define_asset_job("insights_of_sites", selection=home_again)
    upload = dg.define_asset_job("upload_sites", selection=[keys.SITE_UPLOAD])
    return dg.Definitions(
        assets=[
            deployment.release,
            deployment.deployment,
            scores.scores,
            scores.insights,
            returns.egress,
            returns.upload,
        ],
        jobs=[deploy, restart, score, insights, upload],
        sensors=[
            automation.sites_registered(usecase),
            # A site by itself knows no registry: what it is to run comes on media.
            *([] if own else [automation.release_available(deploy, restart, home, usecase)]),
            automation.something_waits(
                "bundle_arrived",
                deploy,
                home,
                usecase,
                waiting.bundles,
                "A medium with a bundle was carried to a site.",
                unless=[restart],
                apart=True,
            ),
            automation.something_waits(
                "service_down",
                restart,
                home,
                usecase,
                waiting.service,
                "A site's service is gone: it gets back the release on its disk, link or no link.",
                unless=[deploy],
                apart=True,
            ),
            automation.something_waits(
                "readings_waiting",
                score,
                home,
                usecase,
                waiting.readings,
                "Files of readings wait at a site that serves scores.",
            ),
            automation.something_waits(
                "scores_waiting",
                insights,
                home,
                usecase,
                waiting.scores,
                "Scores or feedback, from whomever, wait to become insights.",
                unless=[score],
            ),
            forwarding_sensor.insights_queued(
                home, [site.name for site in usecase.sites if site.road is Road.QUEUE]
            ),
            automation.packages_waiting(upload, home, usecase, keys.SITE_UPLOAD),
            lease_sensor.lease_watched(home, usecase),
        ],
        # A run here is short and starts fast: a process a step would cost more than the step.
        executor=dg.in_process_executor,
        resources={"home": home, "usecase": usecase, **(resources or {})},
    )


defs = build_defs()
