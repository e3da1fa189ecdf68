"""The image of a model: made without a container engine, and unpacked safely.

Its last layer holds the model; below it may be those of a runtime image, and then any container engine runs
it. The same arguments give the same digest, on any machine: the model's layer is an uncompressed tar
(compressors differ between versions; what travels compressed is the road's choice), and no time, user or path
gets in. Runtime images are `base`'s, who signs an image is `release`'s.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_ai_assets.delivery import archive, durable
from edge_ai_assets.delivery import base as bases
from edge_ai_assets.delivery.errors import MalformedError, MismatchError, MissingError, TooLargeError
from edge_ai_assets.delivery.layout import Layout
from edge_ai_assets.delivery.manifest import (
    CONFIG,
    LAYER,
    MANIFEST,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    Manifest,
    decode,
    digest_of_chunks,
    encode,
    read_manifest,
)

FILES = ("contract.json", "metrics.json", "model.onnx", "model_card.md", "usecase.yaml")
MAX_FILES = 64
_MEMBER = re.compile(r"model/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


def build(
    model_dir: Path, layout: Layout, *, annotations: Mapping[str, str], base: Descriptor | None = None
) -> Digest:
    """Make the image of a model and keep it in `layout`.

    Args:
        model_dir: holds `FILES`; whatever else lies in it does not ship.
        annotations: stand on the manifest and so are part of the digest. What differs from run to run
            although the model is the same (a run id, a time) belongs into the release, not here.
        base: a runtime image in `layout`, see `base.keep`: the model's layer lies on its layers, and what it
            says of user, environment and command holds. Without one no container engine can run the image.

    Returns:
        The manifest's digest; it depends on the files' content, the annotations and the base alone.

    Raises:
        MissingError: one of the files is not there, or the base is not in `layout`.
        MalformedError: an annotation is no text, or the base cannot be one.
    """
    missing = [name for name in FILES if not (model_dir / name).is_file()]
    if missing:
        raise MissingError(f"{model_dir} is no complete model: {', '.join(missing)} missing")
    with layout.writing():
        below = bases.NOTHING if base is None else bases.read(layout, base)
        layer = layout.put_chunks(archive.pack(_members(model_dir)), LAYER)
        document = Manifest(
            layout.put(encode(below.config_with(layer)), CONFIG),
            (*below.layers, layer),
            annotations={**below.annotations, **annotations},
        )
        manifest = encode(document)
        decode(manifest, Manifest, "the image's manifest")  # an annotation that is no text is refused here
        return layout.put(manifest, MANIFEST).digest


def describe(layout: Layout, digest: Digest) -> Descriptor:
    """The descriptor of an image that is in `layout`; MissingError when it is not."""
    with layout.open(digest, max_bytes=MAX_DOCUMENT) as file:
        return Descriptor(MANIFEST, digest, os.fstat(file.fileno()).st_size)


def model_digest(layout: Layout, digest: Digest, *, max_bytes: int) -> Digest:
    """Digest of the ONNX file in an image; errors of `unpack`, and MissingError when it holds none."""
    with _files(layout, digest, max_bytes) as files:
        for name, content in files:
            if name == "model.onnx":
                return digest_of_chunks(content)
    raise MissingError(f"image {digest} holds no model/model.onnx")


def unpack(layout: Layout, digest: Digest, into: Path, *, max_bytes: int) -> None:
    """Put the files of an image under `into`/model. `into` appears whole and durable, or not at all.

    Args:
        into: if it exists and holds exactly these files, nothing is done.
        max_bytes: of the layer, and so of all files together.

    Raises:
        MismatchError: `into` exists and is something else; or a digest does not check out.
        MalformedError: the image or its layer is not of the form that `build` makes: a link, a device, a name
            outside model/, too many files, anything compressed.
        TooLargeError, MissingError: see `Layout.get`.
    """
    with durable.locked(into.parent / ".lock"):
        if into.exists():
            if not matches(layout, digest, into, max_bytes=max_bytes):
                raise MismatchError(
                    f"{into} does not hold what image {digest} holds; remove it to unpack again"
                )
            return
        partial = into.with_name(f".{into.name}.partial")
        if partial.exists():
            shutil.rmtree(partial)  # of a process that was killed; the lock says that nobody is at it
        (partial / "model").mkdir(parents=True)
        try:
            with _files(layout, digest, max_bytes) as files:
                for name, content in files:
                    with (partial / "model" / name).open("xb") as file:
                        file.writelines(content)
                        file.flush()
                        os.fsync(file.fileno())
            durable.sync_folder(partial / "model")
            durable.sync_folder(partial)
            os.replace(partial, into)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        durable.sync_folder(into.parent)


def matches(layout: Layout, digest: Digest, folder: Path, *, max_bytes: int) -> bool:
    """Whether `folder` holds exactly the files of an image, byte by byte; errors of `unpack`."""
    model = folder / "model"
    if model.is_symlink() or not model.is_dir() or os.listdir(folder) != ["model"]:
        return False
    seen = set()
    with _files(layout, digest, max_bytes) as files:
        for name, content in files:
            path = model / name
            if path.is_symlink() or not path.is_file():
                return False
            with path.open("rb") as file:
                if any(file.read(len(chunk)) != chunk for chunk in content) or file.read(1):
                    return False
            seen.add(name)
    return seen == set(os.listdir(model))


def _members(model_dir: Path) -> Iterator[archive.Member]:
    for name in sorted(FILES):
        with (model_dir / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield archive.Member(f"model/{name}", size, durable.chunks_of(file))


@contextmanager
def _files(layout: Layout, digest: Digest, max_bytes: int) -> Iterator[Iterator[tuple[str, Iterator[bytes]]]]:
    """Names and contents of the files in an image's model layer, after the layer's digest was checked."""
    manifest = read_manifest(layout, describe(layout, digest))
    if not manifest.layers or manifest.layers[-1].media_type != LAYER:
        kinds = ", ".join(layer.media_type for layer in manifest.layers) or "none"
        raise MalformedError(f"image {digest} is refused: its last layer must be {LAYER!r}, it has: {kinds}")
    layer = manifest.layers[-1]
    if layer.size > max_bytes:
        raise TooLargeError(
            f"image {digest} is refused: its model has {layer.size} bytes, {max_bytes} are allowed"
        )
    with layout.open(layer.digest, max_bytes=layer.size) as file:
        yield _plain(archive.members(file, f"image {digest}"), f"image {digest}")


def _plain(members: Iterator[archive.Member], what: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    seen: set[str] = set()
    for member in members:
        match = _MEMBER.fullmatch(member.name)
        if not match:
            raise MalformedError(f"{what} is refused: {member.name!r} is no plain name under model/")
        name = match[1]
        if name in seen:
            raise MalformedError(f"{what} is refused: {member.name!r} stands in it twice")
        seen.add(name)
        if len(seen) > MAX_FILES:
            raise MalformedError(f"{what} is refused: it holds more than {MAX_FILES} files")
        yield name, iter(member.chunks)
