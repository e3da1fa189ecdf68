"""Tensors of the Open Inference Protocol: their bytes or their JSON to values, and values to their bytes.

Datatypes, sizes and encodings are here; which tensors a model takes and gives is `oip`'s. Whatever a client
says of a tensor is compared with what it sent before memory is taken for it.

Source: Open Inference Protocol, REST, "Tensor Data"; Triton Inference Server, "Binary Tensor Data Extension".
"""

from __future__ import annotations

import re
import struct
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_ai_assets.scoring.refused import Refused

TEXT = "BYTES"
NUMBERS: dict[str, np.dtype[Any]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
}
"""Datatypes a number may come in. BOOL is none: the contract takes no truth value for a number."""

STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
"""A JSON string, or the rest of the text if it does not end: so that no character is looked at twice."""
_VALUES = re.compile(rb'(?:[^",]++|' + STRING + rb")++,?+|,", re.DOTALL)
"""What lies between commas that are no part of a string."""
_LISTS = re.compile(rb"\s*\[\s*\[")
_FLAT: dict[str, msgspec.json.Decoder[list[Any]]] = {
    "f": msgspec.json.Decoder(list[float | None]),
    "i": msgspec.json.Decoder(list[int]),
    "u": msgspec.json.Decoder(list[int]),
    TEXT: msgspec.json.Decoder(list[str | None]),
}
_NESTED: dict[str, msgspec.json.Decoder[list[list[Any]]]] = {
    "f": msgspec.json.Decoder(list[list[float | None]]),
    "i": msgspec.json.Decoder(list[list[int]]),
    "u": msgspec.json.Decoder(list[list[int]]),
    TEXT: msgspec.json.Decoder(list[list[str | None]]),
}
_length_at = struct.Struct("<I").unpack_from


class Tensor(NamedTuple):
    """What a request says of one of its inputs, already compared with the model."""

    name: str
    datatype: str
    """One of NUMBERS, or TEXT."""
    rows: int
    width: int
    """Values a row."""


def from_bytes(tensor: Tensor, body: bytes, start: int, size: int) -> np.ndarray | list[str | None]:
    """The values of a tensor in binary, shape (rows * width,): numbers are a view of the body.

    Args:
        tensor: what the request says of it.
        body: of the request.
        start, size: where in it the tensor lies, in bytes.

    Raises:
        Refused: 400 if it has another size than its values need, or a text is not UTF-8.
    """
    if tensor.datatype == TEXT:
        return _texts(tensor, body, start, start + size)
    dtype = NUMBERS[tensor.datatype]
    count = tensor.rows * tensor.width
    if size != count * dtype.itemsize:
        need = f"{count} values of {tensor.datatype} are {count * dtype.itemsize} bytes"
        raise Refused(400, f"input {tensor.name!r}: {need}, its binary_data_size is {size}")
    return np.frombuffer(body, dtype, count, start)


def from_json(tensor: Tensor, data: bytes) -> np.ndarray | list[str | None]:
    """The values of a tensor in JSON, shape (rows * width,), each rounded to the tensor's datatype.

    Args:
        tensor: what the request says of it.
        data: a list of all values row by row, or a list of a list for each row.

    Raises:
        Refused: 400 if it holds another number of values, or one that the datatype does not have; null is
            one only of a text (missing) and of a floating number (NaN).
    """
    count = tensor.rows * tensor.width
    if (held := _counted(data, count)) != count:
        amount = str(held) if held < count else f"more than {count}"
        raise Refused(400, f"input {tensor.name!r}: data holds {amount} values, its shape {count}")
    dtype = NUMBERS.get(tensor.datatype)
    kind = TEXT if dtype is None else dtype.kind
    try:
        if _LISTS.match(data):
            lists = _NESTED[kind].decode(data)
            if len(lists) != tensor.rows or any(len(values) != tensor.width for values in lists):
                raise Refused(
                    400, f"input {tensor.name!r}: data must be {tensor.rows} lists of {tensor.width}"
                )
            values: list[Any] = list(chain.from_iterable(lists))
        else:
            values = _FLAT[kind].decode(data)
            if len(values) != count:  # an empty list is counted as one value
                raise Refused(400, f"input {tensor.name!r}: data holds {len(values)} values")
        if dtype is None:
            return [value or None for value in values]
        return np.array(values, dtype)
    except OverflowError as error:
        raise Refused(400, f"input {tensor.name!r}: a value does not fit into {tensor.datatype}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        hint = "; a missing number is null or NaN, in a floating datatype" if kind in "iu" else ""
        raise Refused(400, f"input {tensor.name!r}: data: {error}{hint}") from error


def numbered(prefix: str, first: int, rows: int) -> bytes:
    """A binary tensor of texts: the prefix and each of `rows` numbers from `first` on behind it.

    Numbers with as many digits are a matrix of digits behind one and the same head: for many rows five times
    as fast as text by text.
    """
    if rows < 16:
        texts = [f"{prefix}{number}".encode() for number in range(first, first + rows)]
        return b"".join([len(text).to_bytes(4, "little") + text for text in texts])
    parts = []
    last = first + rows
    while first < last:
        digits = len(str(first))
        until = min(last, 10**digits)
        head = prefix.encode()
        head = (len(head) + digits).to_bytes(4, "little") + head
        matrix = np.empty((until - first, len(head) + digits), np.uint8)
        matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
        powers = 10 ** np.arange(digits - 1, -1, -1)
        matrix[:, len(head) :] = np.arange(first, until)[:, np.newaxis] // powers % 10 + ord("0")
        parts.append(matrix.tobytes())
        first = until
    return b"".join(parts)


def _texts(tensor: Tensor, body: bytes, start: int, end: int) -> list[str | None]:
    """Texts, shape (rows * width,); an empty one is None."""
    count = tensor.rows * tensor.width
    parts: list[bytes] = []
    at = start
    while len(parts) < count and (begin := at + 4) <= end:
        at = begin + _length_at(body, at)[0]
        parts.append(body[begin:at])
    if at != end or len(parts) != count:
        layout = f"{count} texts, each after its length in 4 bytes, little-endian"
        raise Refused(400, f"input {tensor.name!r}: its {end - start} bytes are not {layout}")
    try:
        # Categories are few: each is decoded once, not once a row.
        known = {part: str(part, "utf-8") or None for part in set(parts)}
    except UnicodeDecodeError as error:
        raise Refused(400, f"input {tensor.name!r}: a text is not UTF-8: {error.reason}") from error
    return [known[part] for part in parts]


def _counted(data: bytes, expected: int) -> int:
    """How many values a JSON list holds, nested or not, without making them; no further than one too many.

    It decides before anything is allocated: a value takes two bytes here and 32 as an object. An empty list
    counts 1.
    """
    if data.count(b",") + 1 == expected:
        return expected
    return sum(1 for _ in islice(_VALUES.finditer(data), expected + 1))  # some commas may lie within texts
