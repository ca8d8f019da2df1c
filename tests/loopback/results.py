"""Spoils the body of a result: what a client must refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

Content = dict[str, Any]


def spoil(body: str, kind: str) -> str:
    """`body` with the fault `kind`, one of `faults.RESULT_KINDS` other than "other_job", in it."""
    if '"schema_version"' in body[:200]:
        content = json.loads(body)
        _EXECUTOR[kind](content)
        return json.dumps(content)
    return _spoil_legacy(body, kind)


def _drop_row(content: Content) -> None:
    """Arrays and the description that the client decodes them with agree on one row less."""
    for entry in content["passthrough_data"]["qiskit_mitigation"]:
        if len(entry.get("param_shape", ())) != 1 or entry["param_shape"][0] < 2:
            continue
        last = entry["param_shape"][0] - 1
        entry["param_shape"] = [last]
        entry["param_basis_pairs"] = [pair for pair in entry["param_basis_pairs"] if pair[0] != [last]]
        _change(content["data"][entry["program_item_index"]], lambda name, array: array[:, :-1])


def _drop_pub(content: Content) -> None:
    """One PUB less is described; the arrays stay."""
    described = content["passthrough_data"]["qiskit_mitigation"]
    described.remove([entry for entry in described if "observables" in entry][-1])
    processor = content["passthrough_data"]["post_processor"]
    processor["num_pubs"] -= 1
    processor["circuits_metadata"] = processor["circuits_metadata"][:-1]


def _cut_arrays(content: Content) -> None:
    for item in content["data"]:
        _change(item, lambda name, array: array[:, :-1] if array.ndim > 3 else array[:-1])


def _no_numbers(content: Content) -> None:
    """Not-a-number instead of bits; where they are to be flipped, no shots, whose mean is none either."""
    for item in content["data"]:
        flipped = any(name.startswith("measurement_flips") for name in item["results"])

        def spoiled(name: str, array: Any, flipped: bool = flipped) -> Any:
            if name.startswith("measurement_flips"):
                return array
            return array[..., :0, :] if flipped else np.full(array.shape, np.nan)

        _change(item, spoiled)


_EXECUTOR = {"wrong_shape": _drop_row, "wrong_size": _drop_pub, "inconsistent": _cut_arrays, "nan": _no_numbers}


def _change(item: Content, change: Any) -> None:
    from ibm_quantum_schemas.common import CompressedTensorModel

    for name, tensor in item["results"].items():
        array = change(name, CompressedTensorModel(**tensor).to_numpy())
        item["results"][name] = CompressedTensorModel.from_numpy(array).model_dump(mode="json")


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
            data = {name: array[..., :-1] for name, array in data.items()}
        elif kind == "inconsistent":
            del data["evs"]
        pubs.append(PubResult(DataBin(**data, shape=next(iter(data.values())).shape), pub.metadata))
    return json.dumps(PrimitiveResult(pubs, metadata=result.metadata), cls=RuntimeEncoder)
