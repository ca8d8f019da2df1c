"""Spoils the body of a result: what a client must refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def spoil(body: str, kind: str) -> str:
    """`body` with the fault `kind` ("wrong_shape", "wrong_size" or "nan") in it."""
    if '"schema_version"' in body[:200]:
        return _spoil_executor(json.loads(body), kind)
    return _spoil_legacy(body, kind)


def _spoil_executor(content: dict[str, Any], kind: str) -> str:
    from ibm_quantum_schemas.common import CompressedTensorModel

    if kind == "wrong_size":
        content["data"].pop(0)
        return json.dumps(content)
    for item in content["data"]:
        for name, tensor in item["results"].items():
            array = CompressedTensorModel(**tensor).to_numpy()
            if kind == "wrong_shape":
                array = array[..., : max(array.shape[1] - 1, 0), :, :] if array.ndim > 3 else array[:-1]
            elif not name.startswith("measurement_flips"):
                array = np.full(array.shape, np.nan)
            item["results"][name] = CompressedTensorModel.from_numpy(array).model_dump(mode="json")
    return json.dumps(content)


def _spoil_legacy(body: str, kind: str) -> str:
    from qiskit.primitives import DataBin, PrimitiveResult, PubResult
    from qiskit_ibm_runtime.json import RuntimeDecoder, RuntimeEncoder

    result = json.loads(body, cls=RuntimeDecoder)
    pubs = []
    for pub in list(result)[: -1 if kind == "wrong_size" else None]:
        data = {name: np.array(array, dtype=float) for name, array in pub.data.items()}
        if kind == "nan":
            data = {name: np.full(array.shape, np.nan) for name, array in data.items()}
        elif kind == "wrong_shape":
            data = {name: array.reshape(-1)[:-1] for name, array in data.items()}
        pubs.append(PubResult(DataBin(**data, shape=next(iter(data.values())).shape), pub.metadata))
    return json.dumps(PrimitiveResult(pubs, metadata=result.metadata), cls=RuntimeEncoder)
