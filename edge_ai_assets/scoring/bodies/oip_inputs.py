"""The input tensors of a request of the Open Inference Protocol, compared with a model and read as columns.

Which tensors a model takes is told in `oip`; how one is encoded is `oip_tensors`' work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_ai_assets.scoring.bodies import oip_tensors
from edge_ai_assets.scoring.bodies.oip_messages import Input
from edge_ai_assets.scoring.bodies.oip_tensors import NUMBERS, TEXT, Tensor
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.refused import Refused
from edge_ai_assets.scoring.requests import MAX_ROWS

FEATURES = "features"

_WHOLE = [name for name, dtype in NUMBERS.items() if dtype.kind in "iu"]
_CONTEXT = {"_time": [TEXT], "_run": [TEXT], "_row": _WHOLE, "_asset": [TEXT]}
_DATATYPES = {"number": list(NUMBERS), "category": [TEXT]}

Columns = dict[str, Sequence[Any] | np.ndarray]


@np.errstate(over="ignore")  # what a datatype cannot hold becomes infinite, and the contract refuses it
def read(
    inputs: Sequence[Input], body: bytes, at: int, contract: Contract
) -> tuple[Columns, dict[str, Sequence[Any]], int]:
    """The inputs of a request as columns of the model, columns of context, and the number of rows.

    Args:
        inputs: as the request describes them.
        body: of the request; `at` is where its binary tensors begin.
        contract: of the model.

    Raises:
        Refused: see `oip.infer`.
    """
    sizes = [None if given.parameters is None else given.parameters.binary_data_size for given in inputs]
    if (announced := sum(size or 0 for size in sizes)) != len(body) - at:
        follow = f"{len(body) - at} bytes follow the JSON"
        raise Refused(400, f"{follow}, but the binary_data_size of the inputs add up to {announced}")
    known = {item.name: item.kind for item in contract.inputs}
    columns: Columns = {}
    context: dict[str, Sequence[Any]] = {}
    rows = 0
    for given, size in zip(inputs, sizes, strict=True):
        name = given.name
        if name in columns or name in context:
            raise Refused(400, f"input {name[:200]!r} is given twice")
        matrix = name == FEATURES and name not in known
        width = _width(contract, columns) if matrix else 1
        tensor = _tensor(given, "number" if matrix else known.get(name), width)
        rows = rows or tensor.rows
        if tensor.rows != rows:
            raise Refused(400, f"input {name!r} has {tensor.rows} rows, the inputs before it have {rows}")
        data = bytes(given.data)
        if (size is None) == (data in (b"", b"null")):
            raise Refused(400, f"input {name!r} must have exactly one of data and binary_data_size")
        values: np.ndarray | list[str | None]
        if size is None:
            values = oip_tensors.from_json(tensor, data)
        else:
            values = oip_tensors.from_bytes(tensor, body, at, size)
            at += size
        if matrix:
            of_inputs = np.asarray(values).reshape(rows, width).T
            columns.update(zip(known, of_inputs, strict=True))
        elif name in known:
            columns[name] = values
        else:
            context[name] = values.tolist() if isinstance(values, np.ndarray) else values
    if not columns:
        raise Refused(400, "inputs holds no input of the model")
    return columns, context, rows


def raw(body: bytes, contract: Contract) -> tuple[Columns, int]:
    """A body that is nothing but the values of the model's one input, FP32, as columns and number of rows.

    Raises:
        Refused: see `oip.infer`.
    """
    item = contract.inputs[0]
    if len(contract.inputs) != 1 or item.kind != "number":
        only = "only a model whose one input is a number takes"
        raise Refused(
            400,
            f"Inference-Header-Content-Length 0 announces a raw tensor, which {only}; leave it out if "
            "the body is JSON",
        )
    if not body or len(body) % 4:
        raise Refused(400, f"a raw tensor holds FP32 numbers of 4 bytes, this one has {len(body)} bytes")
    rows = _limited(len(body) // 4, item.name)
    values = oip_tensors.from_bytes(Tensor(item.name, "FP32", rows, 1), body, 0, len(body))
    return {item.name: values}, rows


def _width(contract: Contract, columns: Mapping[str, Any]) -> int:
    """Values a row of `features`."""
    if any(item.kind != "number" for item in contract.inputs):
        raise Refused(
            400, f"input {FEATURES!r} is for models of numbers only; send each input as its own tensor"
        )
    if columns:
        raise Refused(400, f"input {FEATURES!r} holds all inputs, send it without {next(iter(columns))!r}")
    return len(contract.inputs)


def _tensor(given: Input, kind: str | None, width: int) -> Tensor:
    """What a request says of an input, compared with what the model takes."""
    name, shape = given.name, given.shape
    datatypes = _CONTEXT.get(name) if kind is None else _DATATYPES[kind]
    if datatypes is None:
        raise Refused(400, f"input {name[:200]!r} is none of this model")
    if given.parameters is not None and given.parameters.shared_memory_region is not None:
        raise Refused(400, f"input {name!r}: shared memory is not supported")
    if given.datatype not in datatypes:
        possible = ", ".join(datatypes)
        raise Refused(400, f"input {name!r} has datatype {given.datatype[:40]!r}, possible is {possible}")
    if not (len(shape) == 2 and shape[1] == width) and not (len(shape) == 1 and width == 1):
        possible = f"[n, {width}]" if width > 1 else "[n] or [n, 1]"
        raise Refused(400, f"input {name!r} has shape {str(shape[:5])[:100]}, it must be {possible}")
    return Tensor(name, given.datatype, _limited(shape[0], name), width)


def _limited(rows: int, name: str) -> int:
    if rows < 1:
        raise Refused(400, f"input {name!r} holds no row")
    if rows > MAX_ROWS:
        raise Refused(413, f"{rows} rows are too many for one request, at most {MAX_ROWS} are taken")
    return rows
