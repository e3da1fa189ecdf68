"""The JSON of the Open Inference Protocol: where it ends in a body, and its form.

What its parts mean for a model is `oip`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edge_ai_assets.scoring.bodies.oip_tensors import STRING
from edge_ai_assets.scoring.refused import Refused

HEADER = b"inference-header-content-length"
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_PIECES = re.compile(rb'((?:[^"N]++|' + STRING + rb"|N(?!aN))++)|NaN", re.DOTALL)
"""A JSON text in pieces: each NaN that is no part of a string, and all between them as the group."""


# What a form does not name is passed over: other servers take parameters that mean nothing here.


class OfRequest(msgspec.Struct):
    """Parameters of a request."""

    binary_data_output: bool = False


class OfInput(msgspec.Struct):
    """Parameters of an input."""

    binary_data_size: Size | None = None
    shared_memory_region: Any = None


class OfOutput(msgspec.Struct):
    """Parameters of a requested output."""

    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class Input(msgspec.Struct):
    """$request_input."""

    name: str
    shape: list[Size]
    datatype: str
    parameters: OfInput | None = None
    data: msgspec.Raw = msgspec.Raw()
    """Its values as they came, decoded when it is known what they must be; empty if there are none."""


class RequestedOutput(msgspec.Struct):
    """$request_output."""

    name: str
    parameters: OfOutput | None = None


class InferRequest(msgspec.Struct):
    """$inference_request."""

    inputs: list[Input]
    id: str | None = None
    parameters: OfRequest | None = None
    outputs: list[RequestedOutput] | None = None


_decoder = msgspec.json.Decoder(InferRequest)


def json_length(headers: Mapping[bytes, bytes], size: int) -> int:
    """How many bytes of a body are JSON: all, if the header does not say; 0 announces a raw tensor.

    Raises:
        Refused: 400 if the header is no whole number, or beyond the body.
    """
    given = headers.get(HEADER)
    if given is None:
        return size
    length = int(given) if given.isdigit() and len(given) <= 18 else -1
    if not 0 <= length <= size:
        text = given[:40].decode("latin-1")
        raise Refused(400, f"Inference-Header-Content-Length is {text!r}, the body has {size} bytes")
    return length


def decode(text: bytes) -> InferRequest:
    """The JSON of a request; NaN, which is no JSON, is taken for null.

    Raises:
        Refused: 400 if it is no JSON in UTF-8, or another form; the message says where.
    """
    try:
        try:
            return _decoder.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if b"NaN" not in text:
                raise
            # tritonclient writes NaN as it stands, and has no other way to send a missing number in JSON.
            return _decoder.decode(_null_for_nan(text))
    except msgspec.ValidationError as error:
        raise Refused(400, f"the request does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the request is no JSON in UTF-8: {error}") from error
    except RecursionError as error:
        raise Refused(400, "the request is nested too deeply") from error


def _null_for_nan(text: bytes) -> bytearray:
    """A JSON text in which each NaN that is no part of a string is null."""
    fixed = bytearray()
    for piece in _PIECES.finditer(text):
        fixed += piece[1] or b"null"
    return fixed
