"""Content-Encoding: bodies that came compressed, and answers that leave so. Nothing of what is in them."""

from __future__ import annotations

import gzip
import zlib

from edge_ai_assets.scoring.refused import Refused

WORTH = 1024
"""Answers of fewer bytes leave as they are: they fit in one packet anyway."""
MAX_MEMBERS = 1_000
"""Of one gzip body. Block-wise compressors start one every 64 KiB; millions of empty ones only cost time."""
CHUNK = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS
NAMES = {b"gzip": b"gzip", b"x-gzip": b"gzip", b"deflate": b"deflate", b"identity": b"", b"": b""}


def decoded(body: bytes, content_encoding: bytes, limit: int) -> bytes:
    """A body as it was before its sender compressed it; never more than `limit` bytes of it are in memory.

    Args:
        body: what came.
        content_encoding: value of the header, empty if there was none: gzip, deflate or identity, in any
            case. deflate is zlib's format, and the raw one that some clients send instead.
        limit: of the result, in bytes.

    Raises:
        Refused: 400 it is broken, incomplete or followed by something else; 413 it is larger than `limit`;
            415 another encoding, or more than one.

    Source: RFC 9110, 8.4.1; RFC 1950, 1951 and 1952.
    """
    name = NAMES.get(content_encoding.strip().lower())
    if name is None:
        shown = content_encoding[:60].decode("latin-1")
        raise Refused(415, f"Content-Encoding {shown!r} is not known here; gzip, deflate and identity are")
    if name == b"gzip":
        return _inflated(body, GZIP, MAX_MEMBERS, "gzip", limit)
    if name == b"deflate":
        # zlib's first two bytes, RFC 1950, 2.2; no compressor starts a raw stream with such a pair.
        wrapped = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _inflated(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, 1, "deflate", limit)
    if len(body) > limit:
        raise Refused(413, f"the body has {len(body)} bytes, at most {limit} are taken")
    return body


def encoded(body: bytes, accept_encoding: bytes) -> tuple[bytes, bytes | None]:
    """An answer as it leaves.

    Args:
        body: the answer.
        accept_encoding: value of the request's header, empty if there was none.

    Returns:
        The bytes to send and their Content-Encoding, None if they are the answer itself: the client does not
        take gzip, the answer is shorter than WORTH, or gzip does not make it shorter.
    """
    if len(body) < WORTH or not _accepts_gzip(accept_encoding):
        return body, None
    packed = gzip.compress(body, 1, mtime=0)
    return (packed, b"gzip") if len(packed) < len(body) else (body, None)


def _inflated(body: bytes, window: int, members: int, name: str, limit: int) -> bytes:
    """`body` decompressed: up to `members` streams, one after the other, and nothing after them."""
    parts: list[bytes] = []
    size = position = 0
    for _ in range(members):
        stream = zlib.decompressobj(window)
        while not stream.eof:
            # In chunks, so that what zlib hands back as unused is small, however many streams there are.
            chunk = body[position : position + CHUNK]
            if not chunk:
                raise Refused(400, f"the {name} body is incomplete")
            try:
                part = stream.decompress(chunk, limit + 1 - size)
            except zlib.error as error:
                raise Refused(400, f"the {name} body is broken: {error}") from error
            size += len(part)
            if size > limit:
                raise Refused(413, f"the {name} body holds more than {limit} bytes")
            parts.append(part)
            position += len(chunk) - len(stream.unused_data) - len(stream.unconsumed_tail)
        if position == len(body):
            return b"".join(parts)
    if members == 1:
        raise Refused(
            400, f"the {name} body is followed by {len(body) - position} bytes that are not part of it"
        )
    raise Refused(400, f"the {name} body has more than {members} members")


def _accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether a client takes gzip: it is named with a weight above 0, or only `*` is (RFC 9110, 12.5.3)."""
    weights = {}
    for item in accept_encoding.lower().split(b","):
        name, _, parameter = item.partition(b";")
        key, _, value = parameter.partition(b"=")
        try:
            weights[name.strip()] = float(value) if key.strip() == b"q" else 1.0
        except ValueError:
            weights[name.strip()] = (
                0.0  # a weight that is none: what is sent as it is is right for every client
            )
    return weights.get(b"gzip", weights.get(b"x-gzip", weights.get(b"*", 0.0))) > 0
