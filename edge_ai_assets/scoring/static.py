"""The page for end users as answers that are ready: its files read once, with the headers that keep it safe.

What the page shows and asks for is in the files of `page/`. Which path is whose, and who may ask, is `app`'s.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge_ai_assets.scoring.messages import Response

FOLDER = Path(__file__).with_name("page")
INDEX = "index.html"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but the service itself: no inline script or style, no other host, no frame around the page."""
TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


def assets() -> dict[str, Response]:
    """Every file of the page as its answer, by path: the page itself at `/`, the others at `/static/NAME`.

    Each has an ETag of its content and must be asked for again before it is used, so that a new version of
    the service is never shown by the page of an old one.

    Raises:
        ValueError: a file of a kind that TYPES does not know, which a browser would have to guess.
    """
    found: dict[str, Response] = {}
    for file in sorted(FOLDER.iterdir()):
        kind = TYPES.get(file.suffix)
        if kind is None:
            raise ValueError(f"page/{file.name}: a file must be of one of the kinds {', '.join(TYPES)}")
        path = "/" if file.name == INDEX else f"/static/{file.name}"
        found[path] = response(file.read_bytes(), kind)
    return found


def response(body: bytes, kind: bytes) -> Response:
    """A file for browsers, of a content type, with the headers that keep what it shows to this service."""
    return Response(
        200,
        body,
        kind,
        (
            (b"etag", b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()),
            (b"cache-control", b"no-cache"),
            (b"content-security-policy", POLICY.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ),
    )
