"""From the champion to what sites can take: a signed release in the registry, and an offline bundle."""

import dagster as dg

from edge_ai_assets import keys
from edge_ai_assets.azure.automation_conditions import FOLLOWS
from edge_ai_assets.azure.far_registry import FarRegistry
from edge_ai_assets.home import Home
from edge_ai_assets.metadata import records
from edge_ai_assets.usecase import UseCase


@dg.asset(
    key=keys.IMAGE,
    deps=[keys.CHAMPION],
    group_name="release",
    kinds={"oci"},
    owners=[keys.PLATFORM],
    automation_condition=FOLLOWS,
)
def image(
    context: dg.AssetExecutionContext,
    home: dg.ResourceParam[Home],
    usecase: dg.ResourceParam[UseCase],
    far_registry: dg.ResourceParam[FarRegistry],
) -> dg.MaterializeResult:
    """The champion as an OCI image in the registry, stated as a signed release. The same champion is the
    same release; one whose release was withdrawn is not released again."""
    from edge_ai_assets.delivery import pack
    from edge_ai_assets.delivery.errors import UnreachableError

    released = pack.release(home.champion, home.registry, home.keys, usecase.name, usecase.delivery.lease)
    try:
        pushed = far_registry.publish(home)
    except UnreachableError as error:  # it is released, bundles can be made; `lease_renewed` pushes it later
        context.log.warning("release %s is not pushed yet: %s", released.version, error)
        pushed = None
    taken_back = pack.withdrawn(home.registry, home.keys)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(released.image),
        metadata={
            "release": released.version,
            "image": released.image,
            "model": released.model,
            "training_run": dg.MetadataValue.dagster_run(released.run_id),
            "training_set": released.data_version,
            **{
                name: released.metrics[name]
                for name in ("cv_f1", "cv_false_alarm_rate")
                if name in released.metrics
            },
            "releases": records(
                [
                    {
                        "release": one.version,
                        "made": f"{one.created:%Y-%m-%d %H:%M}",
                        "image": one.image[7:19],
                        "training_set": one.data_version,
                        "training_run": one.run_id[:8],
                        "withdrawn": str(taken_back.get(one.version, "")),
                    }
                    for one in reversed(pack.known(home.registry, home.keys)[-20:])
                ],
                ["release", "made", "image", "training_set", "training_run", "withdrawn"],
            ),
            "registry": far_registry.repository or dg.MetadataValue.path(home.registry),
            **({"pushed_bytes": pushed.bytes, "pushed_blobs": pushed.blobs} if pushed else {}),
        },
    )


@dg.asset(
    key=keys.BUNDLE,
    deps=[keys.IMAGE],
    group_name="release",
    kinds={"oci"},
    owners=[keys.PLATFORM],
    automation_condition=FOLLOWS,
)
def bundle(home: dg.ResourceParam[Home], usecase: dg.ResourceParam[UseCase]) -> dg.MaterializeResult:
    """The newest release as one file to be carried: a whole one for any site, and for each site without a
    link one of what it lacks, with the acknowledgement of what came of it."""
    from edge_ai_assets.azure import outgoing
    from edge_ai_assets.delivery import pack

    written = outgoing.bundles(home, usecase)
    path = written[""]
    newest = pack.newest(home.registry, home.keys)
    return dg.MaterializeResult(
        metadata={
            "release": newest.version if newest else "none: each was withdrawn, which is all that it brings",
            **({"image": newest.image} if newest else {}),
            "path": dg.MetadataValue.path(path),
            "bytes": path.stat().st_size,
            "for_sites": records(
                [
                    {"site": site, "bytes": own.stat().st_size, "file": str(own)}
                    for site, own in written.items()
                    if site
                ],
                ["site", "bytes", "file"],
            ),
        }
    )
