"""A folder of blobs under their SHA-256: the content half of an OCI image layout.

Safe against a crash and against other processes. Names for blobs are `layout`'s, their meaning `image`'s and
`release`'s.

Beside what the specification asks for there is `ingest/`, for blobs that are being written and for locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_ai_assets.delivery import durable
from edge_ai_assets.delivery.errors import MalformedError, MismatchError, MissingError, TooLargeError
from edge_ai_assets.delivery.manifest import Descriptor, Digest, digest_of, digest_of_chunks

OCTETS = "application/octet-stream"
_PARTIAL = ".partial"
"""Of a blob that was cut off on its way here; `tmp*` is of one that its writer would begin anew."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class BlobFolder:
    """Blobs in folder `path`. Reading never writes or locks: it may be a read-only medium."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blobs = path / "blobs" / "sha256"
        self._ingest = path / "ingest"

    def put(self, data: bytes, media_type: str = OCTETS) -> Descriptor:
        """Keep bytes; when this returns they survive a power cut."""
        return self.put_chunks([data], media_type)

    def put_chunks(
        self, chunks: Iterable[bytes], media_type: str = OCTETS, *, expect: Descriptor | None = None
    ) -> Descriptor:
        """Keep a stream of bytes.

        Args:
            expect: what they must turn out to be; reading stops at the first byte beyond its size.

        Raises:
            MismatchError: they are not what is expected; nothing is kept.
        """
        with self.writing():
            handle, name = tempfile.mkstemp(dir=self._ingest)
            try:
                with os.fdopen(handle, "wb") as file:
                    descriptor = _copy(chunks, file, media_type, expect)
                    os.fchmod(handle, 0o644)
                    file.flush()
                    os.fsync(handle)
                # A blob of that name is written over: it is the same, or damaged and now healed.
                os.replace(name, self._blob(descriptor.digest))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            durable.sync_folder(self._blobs)
        return descriptor

    def take(self, expect: Descriptor, chunks_from: Callable[[int], Iterable[bytes]]) -> None:
        """Keep a stream that may be cut: what came before is kept, also when this process dies, and not asked
        for again.

        Args:
            expect: what it must turn out to be; reading stops at the first byte beyond its size.
            chunks_from: the bytes from that offset on; its errors end this, and the next time goes on there.

        Raises:
            MismatchError: it is not what is expected. Nothing is kept, the next time begins anew.
        """
        target = self._blob(expect.digest)
        with self.writing(), durable.locked(self._ingest / "take.lock"):
            partial = self._ingest / f"{target.name}{_PARTIAL}"
            with partial.open("a+b") as file:
                file.seek(0)
                hashed, size = hashlib.sha256(), 0
                for chunk in durable.chunks_of(file):
                    hashed.update(chunk)
                    size += len(chunk)
                try:
                    for chunk in chunks_from(size) if size < expect.size else ():
                        size += len(chunk)
                        if size > expect.size:
                            break
                        hashed.update(chunk)
                        file.write(chunk)
                finally:
                    file.flush()
                digest = f"sha256:{hashed.hexdigest()}"
                if (digest, size) != (expect.digest, expect.size):
                    partial.unlink()
                    raise MismatchError(
                        f"blob {expect.digest} is refused: {size} bytes or more with {digest} came, not "
                        f"{expect.size}"
                    )
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.replace(partial, target)
            durable.sync_folder(self._blobs)

    def get(self, digest: Digest, *, max_bytes: int) -> bytes:
        """The bytes of that digest.

        Raises:
            MissingError: they are not here.
            TooLargeError: they are more than `max_bytes`.
            MismatchError: what is here has another digest.
        """
        data = durable.read_bounded(self._blob(digest), max_bytes)
        if digest_of(data) != digest:
            raise MismatchError(f"blob {digest} in {self.path} is damaged: its content has another digest")
        return data

    @contextmanager
    def open(self, digest: Digest, *, max_bytes: int) -> Iterator[BinaryIO]:
        """Like `get`, as an open file at its beginning that was read through and checked before."""
        with durable.open_regular(self._blob(digest)) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise TooLargeError(f"blob {digest} has {size} bytes, at most {max_bytes} are allowed")
            if digest_of_chunks(durable.chunks_of(file)) != digest:
                raise MismatchError(
                    f"blob {digest} in {self.path} is damaged: its content has another digest"
                )
            file.seek(0)
            yield file

    def give(self, part: Descriptor, into: BlobFolder) -> None:
        """Copy a blob, checked on the way; errors of `open`, and MismatchError for another size."""
        with self.open(part.digest, max_bytes=part.size) as file:
            into.put_chunks(durable.chunks_of(file), part.media_type, expect=part)

    def has(self, digest: Digest) -> bool:
        """Whether a blob of that name is here; its content is not looked at."""
        return self._blob(digest).is_file()

    def intact(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here with the size and content it must have."""
        try:
            with self.open(descriptor.digest, max_bytes=descriptor.size) as file:
                return os.fstat(file.fileno()).st_size == descriptor.size
        except (MissingError, TooLargeError, MismatchError):
            return False

    def blobs(self) -> frozenset[Digest]:
        """Digests of all blobs here: a site's inventory. Their content is not looked at."""
        if not self._blobs.is_dir():
            return frozenset()
        names = (f"sha256:{name}" for name in os.listdir(self._blobs))
        return frozenset(name for name in names if _DIGEST.fullmatch(name))

    def forget_partial(self) -> None:
        """Remove what `take` had begun. For whoever is alone."""
        for left in self._ingest.glob(f"*{_PARTIAL}"):
            left.unlink()

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[None]:
        """While this is held, `collect` removes nothing: for whoever puts blobs now and tags them later.

        Whoever finds nobody else writing clears what killed writers left in `ingest/`.
        """
        self._make()
        with (self._ingest / "blobs.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody writes: nothing is to be cleared now
            else:
                for left in self._ingest.glob("tmp*"):
                    left.unlink()
            if not alone:
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _blob(self, digest: Digest) -> Path:
        if not (match := _DIGEST.fullmatch(digest)):
            raise MalformedError(f"{digest!r} is no digest: it must be sha256: and 64 hexadecimal digits")
        return self._blobs / match[1]

    def _make(self) -> None:
        durable.make_folder(self._blobs)
        durable.make_folder(self._ingest)


def _copy(chunks: Iterable[bytes], file: BinaryIO, media_type: str, expect: Descriptor | None) -> Descriptor:
    hashed, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if expect and size > expect.size:
            raise MismatchError(
                f"blob {expect.digest} is refused: it has more than the {expect.size} bytes announced"
            )
        hashed.update(chunk)
        file.write(chunk)
    digest = f"sha256:{hashed.hexdigest()}"
    if expect and (digest, size) != (expect.digest, expect.size):
        raise MismatchError(
            f"blob {expect.digest} is refused: {size} bytes with {digest} came, not {expect.size}"
        )
    return Descriptor(media_type, digest, size)
