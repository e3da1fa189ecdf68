"""The Open Inference Protocol (V2) over REST: a request's bytes to columns, scores to the bytes of an answer.

Pure: paths, versions and what is scored are `app`'s. The model's name is the use case's, its versions are the
numbers of releases. What it takes:

- one tensor for each input of the contract, by name, shape [n] or [n, 1]: a number in any floating or whole
  datatype, a category in BYTES. A derived input may be left out. A missing number is NaN (in JSON also null),
  a missing category an empty text (in JSON also null), since a tensor has no other way to say so;
- or, for a model whose inputs are all numbers, one tensor `features` of shape [n, inputs] in their order;
- what a row belongs to, if wanted: `_time`, `_run` and `_asset` in BYTES, `_row` in a whole datatype.

What it gives: `score` FP32, `predicted` BOOL, `outside` BOOL and `id` BYTES, each of shape [n].

Sources: Open Inference Protocol, REST; Triton Inference Server, "Binary Tensor Data Extension".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edge_ai_assets.scoring.bodies import oip_inputs, oip_messages, oip_tensors
from edge_ai_assets.scoring.bodies.oip_messages import HEADER, InferRequest, OfOutput
from edge_ai_assets.scoring.bodies.oip_tensors import TEXT
from edge_ai_assets.scoring.contract import Contract
from edge_ai_assets.scoring.messages import Response
from edge_ai_assets.scoring.refused import Refused

OUTPUTS = {"score": "FP32", "predicted": "BOOL", "outside": "BOOL", "id": TEXT}
"""Datatype of each output; in this order if the request does not name any."""

_encoder = msgspec.json.Encoder()


class Output(NamedTuple):
    name: str
    binary: bool


class Infer(NamedTuple):
    """A decoded request."""

    columns: Mapping[str, Sequence[Any] | np.ndarray]
    """As `Contract.encode` takes them, shape (rows,) each; numbers in an array, texts in a list."""
    context: Mapping[str, Sequence[Any]]
    """Values of `_time`, `_run`, `_row` and `_asset`, if they came."""
    rows: int
    id: str | None
    outputs: tuple[Output, ...]


def infer(headers: Mapping[bytes, bytes], body: bytes, contract: Contract) -> Infer:
    """Decode the body of a request to `…/infer`.

    Args:
        headers: names in lower case; only Inference-Header-Content-Length is looked at.
        body: JSON, with the binary tensors behind it in the order of the inputs.
        contract: of the model that is asked. Which values are plausible is left to `Contract.encode`.

    Raises:
        Refused: 413 if there are too many rows, 400 for whatever else is wrong; the message names the input.
    """
    end = oip_messages.json_length(headers, len(body))
    if end == 0 and HEADER in headers:
        # As in Triton: the body is one tensor and nothing else, and the answer is binary.
        columns, rows = oip_inputs.raw(body, contract)
        return Infer(columns, {}, rows, None, tuple(Output(name, True) for name in OUTPUTS))
    request = oip_messages.decode(body[:end])
    columns, context, rows = oip_inputs.read(request.inputs, body, end, contract)
    return Infer(columns, context, rows, request.id, _outputs(request))


def answer(
    request: Infer,
    *,
    model: str,
    version: str,
    site: str,
    first: int,
    scores: np.ndarray,
    predicted: np.ndarray,
    outside: np.ndarray,
) -> Response:
    """The answer to a request whose rows were scored and written.

    Args:
        request: what `infer` made of it.
        model, version: as in the path.
        site, first: row i has the id SITE/NUMBER, where NUMBER is first + i.
        scores: float32, shape (rows,).
        predicted, outside: bool, shape (rows,).
    """
    arrays = {"score": (scores, "<f4"), "predicted": (predicted, "?"), "outside": (outside, "?")}
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in request.outputs:
        output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [request.rows]}
        if binary:
            if name == "id":
                part = oip_tensors.numbered(f"{site}/", first, request.rows)
            else:
                values, dtype = arrays[name]
                part = np.asarray(values, dtype).tobytes()
            parts.append(part)
            output["parameters"] = {"binary_data_size": len(part)}
        elif name == "id":
            output["data"] = [f"{site}/{number}" for number in range(first, first + request.rows)]
        else:
            output["data"] = arrays[name][0].tolist()
        outputs.append(output)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        head["id"] = request.id
    text = _encoder.encode(head)
    if not parts:
        return Response(200, text)
    length = (HEADER, str(len(text)).encode())
    return Response(200, b"".join([text, *parts]), b"application/octet-stream", (length,))


def server_metadata() -> dict[str, Any]:
    """The body of GET /v2."""
    from importlib import metadata  # not needed otherwise, and slow to load

    try:
        version = metadata.version("edge_ai_assets")
    except metadata.PackageNotFoundError:
        version = "0"  # run from a checkout that is not installed
    return {"name": "edge_ai_assets", "version": version, "extensions": ["binary_tensor_data"]}


def server_health(*, ready: bool) -> dict[str, bool]:
    """The body of GET /v2/health/live and /v2/health/ready.

    The specification has `live` in both, KServe's client reads `ready` from the second, others the status.
    """
    return {"live": True, "ready": ready}


def model_metadata(contract: Contract, *, versions: Sequence[str]) -> dict[str, Any]:
    """The body of GET /v2/models/MODEL, with the versions that can be asked for."""
    inputs = [
        {"name": item.name, "datatype": "FP32" if item.kind == "number" else TEXT, "shape": [-1]}
        for item in contract.inputs
    ]
    outputs = [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()]
    return {
        "name": contract.usecase,
        "versions": list(versions),
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
    }


def model_ready(contract: Contract, *, ready: bool) -> dict[str, Any]:
    """The body of GET /v2/models/MODEL/ready."""
    return {"name": contract.usecase, "ready": ready}


def _outputs(request: InferRequest) -> tuple[Output, ...]:
    """The outputs to answer and how: those that are named, otherwise all."""
    binary = request.parameters is not None and request.parameters.binary_data_output
    if not request.outputs:
        return tuple(Output(name, binary) for name in OUTPUTS)
    wanted: dict[str, Output] = {}
    for output in request.outputs:
        name = output.name
        if name not in OUTPUTS:
            raise Refused(400, f"output {name[:200]!r} is none of this model, it gives {', '.join(OUTPUTS)}")
        if name in wanted:
            raise Refused(400, f"output {name!r} is asked for twice")
        of = output.parameters or OfOutput()
        if of.classification is not None or of.shared_memory_region is not None:
            raise Refused(400, f"output {name!r}: neither classification nor shared memory is supported")
        wanted[name] = Output(name, binary if of.binary_data is None else of.binary_data)
    return tuple(wanted.values())
