"""Azure's side of the trust lease: what is in the registry is signed anew in time."""

from __future__ import annotations

import dagster as dg

from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.home import Home
from edge_ai_assets.usecase import UseCase

EVERY = 600
ONLY_HERE = FarRegistry()


def lease_renewed(home: Home, usecase: UseCase, far_registry: FarRegistry = ONLY_HERE) -> dg.SensorDefinition:
    """A sensor that signs the registry's trust metadata anew when a tenth of its lease is over."""

    @dg.sensor(
        name="lease_renewed",
        minimum_interval_seconds=EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Signs anew what sites trust by, long before the lease ends.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        """State-driven: what the registry holds says whether it is due, so a restart changes nothing."""
        from edge_ai_assets.delivery import pack
        from edge_ai_assets.delivery.layout import Layout
        from edge_ai_assets.delivery.release import versions

        if not versions(Layout(home.registry).tags()):  # withdrawn ones count: that they are is to be heard
            return dg.SkipReason("there is no release yet")
        pack.current(home.registry, home.keys, usecase.delivery.lease)
        # Also what a run could not push that was cut off.
        if (pushed := far_registry.publish(home)) and pushed.tags:
            return dg.SkipReason(f"{pushed.tags} tags were pushed to {far_registry.repository}")
        return dg.SkipReason("what sites trust by is fresh")

    return sensor
