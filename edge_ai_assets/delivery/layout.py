"""An OCI image layout folder: the embedded registry, and a site's own store.

Tags in index.json for what lies in `blobs`. Source: image-spec v1.1, image-layout.md.

The lock on blobs is always taken before the one on the index.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.blobs import BlobFolder
from edge_ai_assets.delivery.errors import MalformedError, MissingError, TooLargeError
from edge_ai_assets.delivery.manifest import (
    MAX_DOCUMENT,
    REF_NAME,
    Descriptor,
    Digest,
    Index,
    decode,
    encode,
    reachable,
    tagged,
)

MARK = b'{"imageLayoutVersion":"1.0.0"}'
_TAG = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+/]|--)[A-Za-z0-9]+)*")


class Layout(BlobFolder):
    """The layout in folder `path`: blobs and tags."""

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let a name mean that blob from now on."""
        with self.editing() as tags:
            tags[name] = descriptor

    def resolve(self, name: str) -> Descriptor:
        """What a name means; MissingError when there is no such tag."""
        try:
            return self.tags()[name]
        except KeyError:
            raise MissingError(f"there is no tag {name!r} in {self.path}") from None

    def tags(self) -> dict[str, Descriptor]:
        """All tags, by name, in name order; none when there is no layout yet."""
        return self._read()[1]

    def head(self, name: str) -> Digest | None:
        """The digest that a tag means; None when there is no such tag."""
        found = self.tags().get(name)
        return found.digest if found else None

    def names(self) -> Collection[str]:
        """The names of all tags."""
        return self.tags().keys()

    @contextmanager
    def editing(self) -> Iterator[dict[str, Descriptor]]:
        """All tags, to be changed at once: they are replaced when the block ends well. Others wait meanwhile.

        Raises:
            MalformedError: a name that OCI does not allow; the tags are as they were.
            MissingError: a tag for a blob that is not here; the tags are as they were.
        """
        with self.writing(), durable.locked(self._ingest / "index.lock"):
            index, before = self._read()
            tags = dict(before)
            yield tags
            if tags == before:
                return
            for name, descriptor in tags.items():
                if not _TAG.fullmatch(name):
                    raise MalformedError(
                        f"{name!r} is no tag: letters and digits, with single '-', '.', '_' between"
                    )
                if before.get(name) != descriptor and not self.has(descriptor.digest):
                    raise MissingError(
                        f"tag {name!r} is refused: its blob {descriptor.digest} is not in {self.path}"
                    )
            self._write(index, tags)

    def collect(self) -> list[Digest]:
        """Remove the blobs that no tag leads to, and those that are half here; waits until nobody writes.

        Raises:
            DeliveryError: a tag leads to something that is missing or damaged; then nothing is removed.
        """
        with self.writing(alone=True), durable.locked(self._ingest / "index.lock"):
            wanted = reachable(self, list(self._read()[0].manifests))
            unwanted = sorted(self.blobs() - wanted)
            for digest in unwanted:
                self._blob(digest).unlink()
            self.forget_partial()
        return unwanted

    def _make(self) -> None:
        super()._make()
        if (self.path / "oci-layout").exists() and (self.path / "index.json").exists():
            return
        with durable.locked(self._ingest / "index.lock"):
            index, tags = self._read()
            self._write(index, tags)
            with durable.replacing(self.path / "oci-layout") as file:
                file.write(MARK)

    def _read(self) -> tuple[Index, dict[str, Descriptor]]:
        mark = self.path / "oci-layout"
        if mark.exists():
            found = decode(durable.read_bounded(mark, 1024), dict[str, str], str(mark)).get(
                "imageLayoutVersion"
            )
            if found != "1.0.0":
                raise MalformedError(
                    f"{mark} is refused: its layout version is {found!r}, this reads '1.0.0'"
                )
        path = self.path / "index.json"
        if not path.exists():
            if mark.exists():
                raise MissingError(
                    f"{path} is gone, and with it all tags; restore it, or begin with an empty folder"
                )
            return Index(manifests=()), {}
        index = decode(durable.read_bounded(path, MAX_DOCUMENT), Index, str(path))
        tags: dict[str, Descriptor] = {}
        for entry in index.manifests:
            if name := entry.annotations.get(REF_NAME):
                if name in tags:
                    raise MalformedError(f"{path} is refused: tag {name!r} stands in it twice")
                others = {key: value for key, value in entry.annotations.items() if key != REF_NAME}
                tags[name] = msgspec.structs.replace(entry, annotations=others)
        return index, dict(sorted(tags.items()))

    def _write(self, index: Index, tags: dict[str, Descriptor]) -> None:
        untagged = tuple(entry for entry in index.manifests if REF_NAME not in entry.annotations)
        data = encode(msgspec.structs.replace(index, manifests=untagged + tagged(tags)))
        if len(data) > MAX_DOCUMENT:
            raise TooLargeError(f"{self.path} cannot take more tags: its index would have {len(data)} bytes")
        with durable.replacing(self.path / "index.json") as file:
            file.write(data)
