"""What KServe's client gets from a server, as JSON: run by test_oip_clients.py in an environment of its own.

Reads {"url", "model", "inputs", "cases"} from its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype

ASKED = json.load(sys.stdin)
URL, MODEL = f"http://{ASKED['url']}", ASKED["model"]


def inputs(binary: bool) -> list[InferInput]:
    result = []
    for name, (datatype, shape, values) in ASKED["inputs"].items():
        tensor = InferInput(name, shape, datatype)
        array = np.array(values, to_np_dtype(datatype)).reshape(shape)
        tensor.set_data_from_numpy(array, binary_data=binary)
        result.append(tensor)
    return result


async def infer(client: InferenceRESTClient, case: dict[str, Any]) -> dict[str, Any]:
    wanted = case["outputs"] or []
    request = InferRequest(
        MODEL,
        inputs(case["binary"]),
        request_id=case["id"],
        request_outputs=[RequestedOutput(name, {"binary_data": how}) for name, how in wanted],
        parameters=case["parameters"],
    )
    answer = await client.infer(URL, request, model_name=MODEL)
    outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    return {"outputs": outputs, "head": {"id": answer.id, "model_name": answer.model_name}}


async def refused(client: InferenceRESTClient, request: InferRequest, model: str) -> list[Any]:
    try:
        await client.infer(URL, request, model_name=model)
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    return [200, ""]


async def main() -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return {
            "cases": {name: await infer(client, case) for name, case in ASKED["cases"].items()},
            "live": await client.is_server_live(URL),
            "ready": await client.is_server_ready(URL),
            "models": {name: await client.is_model_ready(URL, name) for name in (MODEL, "none")},
            "refused": {
                "missing": await refused(client, InferRequest(MODEL, inputs(True)[:1]), MODEL),
                "model": await refused(client, InferRequest("none", inputs(True)), "none"),
            },
        }


json.dump(asyncio.run(main()), sys.stdout)
