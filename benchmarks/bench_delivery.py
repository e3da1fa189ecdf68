"""Bytes that are shipped to a site: a first install, a model update, and a look that finds nothing new.

- By registry: what Azure pushes, and what the site pulls. By bundle, built against what the site has.
- Beside what people do without: a full image archive, which carries all of it each time; and `skopeo copy` to
  a registry, which knows layers, but carries neither signatures nor SBOM and provenance.

What goes over the wire, both ways and with all headers, is counted by a proxy before a real registry server,
Debian's docker-registry; where that is not installed, only what is carried is measured. The runtime image is
as large as the real one and random: nothing of it compresses further.

Why: a ship's link carries kilobits, and a medium is carried by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import scratch, tell

from edge_ai_assets.delivery import base, bundle, ceremony, image, pack
from edge_ai_assets.delivery.distribution import Repository
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import CONFIG, LAYER, MANIFEST, Manifest, digest_of, encode
from edge_ai_assets.delivery.push import push
from edge_ai_assets.delivery.registry import Registry
from edge_ai_assets.delivery.store import SiteStore
from edge_ai_assets.delivery.trust import Trust
from edge_ai_assets.ml.lineage import Lineage
from edge_ai_assets.runtimes.placement import Placement
from edge_ai_assets.runtimes.sideload import oci_archive
from edge_ai_assets_tests.integration import docker_registry
from edge_ai_assets_tests.integration.faults import Proxy

RUNTIME = (40 << 20, 42 << 20, 1300 << 10)
"""Bytes of the layers of deploy/runtime's image: system, packages, this project."""
MODEL = 400 << 10
"""Bytes of an ONNX file such as the pump station's."""
AROUND = 64 << 10
"""Bytes that an update may ship beside its model."""
USECASE = "pump-station"
OURS = ("bundle", "push", "pull")


def main() -> None:
    with scratch() as folder, wire(folder) as shipped_over:
        azure, shipped = Azure(folder), dict[str, int]()
        ways = {"bundle": azure.carry, "archive": azure.archive}
        for what in ("first", "update", "nothing"):
            if what != "nothing":
                azure.release(what)
            for name, way in ways.items():
                shipped[f"{name} {what}"] = way(what)
            shipped |= {f"{name} {what}": size for name, size in shipped_over(azure).items()}
    names = dict.fromkeys(key.rpartition(" ")[0] for key in shipped)
    ratios = {
        f"archive / {name}, {what}": shipped[f"archive {what}"] / shipped[f"{name} {what}"]
        for what in ("first", "update", "nothing")
        for name in names
        if name != "archive"
    }
    around = {f"{name} update beside the model": shipped[f"{name} update"] - MODEL for name in names}
    tell("delivery", {"model": MODEL, **shipped, **around}, ratios)
    if beyond := [name for name in OURS if shipped.get(f"{name} update", 0) > MODEL + AROUND]:
        sys.exit(f"an update by {', '.join(beyond)} ships more than its model and {AROUND} bytes")


class Azure:
    """Publishes models on one runtime image, to a site that has it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registry, self.keys = folder, folder / "registry", folder / "keys"
        source = Layout(folder / "runtime")
        layers = tuple(source.put(os.urandom(size), f"{LAYER}+gzip") for size in RUNTIME)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
        manifest = Manifest(source.put(encode(config), CONFIG), layers)
        source.tag(base.TAG, source.put(encode(manifest), MANIFEST))
        pack.runtime(source, base.TAG, self.registry)
        self.carried_to = SiteStore(folder / "carried")
        self.linked = SiteStore(folder / "linked")

    def release(self, name: str) -> None:
        model = self.folder / f"model-{name}"
        model.mkdir()
        for each in image.FILES:
            (model / each).write_text("{}\n")
        (model / "model.onnx").write_bytes(os.urandom(MODEL))
        Lineage("run", "v1", digest_of(b"")).write(model)
        self.newest = pack.release(model, self.registry, self.keys, USECASE)

    def carry(self, what: str) -> int:
        """Bytes of a bundle against what the site has."""
        site = self.carried_to
        path = pack.bundle(self.registry, self.keys, self.folder / what, have=site.inventory())
        bundle.import_bundle(path, site.layout, self.trust(site))
        site.fetch(site.layout, self.trust(site))
        return path.stat().st_size

    def archive(self, what: str) -> int:
        """Bytes of the image as one file; nobody knows that it brings nothing new."""
        place = Placement("bergen", "registry.bergen.lan/edge/pump")
        out = self.folder / f"{what}.tar"
        return oci_archive(Layout(self.registry), self.newest.image, place, 1, out).stat().st_size

    def trust(self, site: SiteStore) -> Trust:
        return Trust(ceremony.first_root(self.keys), site.layout)


@contextmanager
def wire(folder: Path) -> Iterator[Callable[[Azure], dict[str, int]]]:
    """Ships over a real registry, and says how many bytes that took by each way; none without a server."""
    if not (shutil.which("docker-registry") and shutil.which("skopeo")):
        print("docker-registry and skopeo are not here: only what is carried is measured", file=sys.stderr)
        yield lambda azure: {}
        return
    with docker_registry.serving(folder / "server") as server:

        def shipped(azure: Azure) -> dict[str, int]:
            def counted(way: Callable[[str], object]) -> int:
                with Proxy(server.port) as road:
                    way(f"127.0.0.1:{road.port}/edge")
                    return len(road.sent) + road.came

            def skopeo(at: str) -> None:
                layout = Layout(azure.registry)
                layout.tag("copied", image.describe(layout, azure.newest.image))  # it wants a tag
                command = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
                subprocess.run(
                    [*command, f"oci:{layout.path}:copied", f"docker://{at}/other:latest"], check=True
                )

            def pulled(at: str) -> None:
                """As a site's sensor does: one request, and a pull when there is something."""
                site, registry = azure.linked, Registry(Repository(f"{at}/pump"))
                if registry.head("latest") != site.layout.head("latest"):
                    site.fetch(registry, azure.trust(site))

            return {
                "push": counted(lambda at: push(Layout(azure.registry), Registry(Repository(f"{at}/pump")))),
                "pull": counted(pulled),
                "skopeo copy": counted(skopeo),
            }

        yield shipped


if __name__ == "__main__":
    main()
