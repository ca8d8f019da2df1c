"""PennyLane + TorchDEQ: the circuit as a broadcast QNode on default.qubit, differentiated by PyTorch's backpropagation."""

from __future__ import annotations

import pennylane as qml
import torch
from problem import CLIP_NORM, LEARNING_RATE, TOLERANCE, Gate, Problem, Step, serve
from torch.nn.functional import cross_entropy
from torchdeq import get_deq

GATES = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ, "crx": qml.CRX, "cnot": qml.CNOT, "h": qml.Hadamard, "sx": qml.SX}


def make_step(problem: Problem, threads: int) -> Step:
    """Build the training step on ``threads`` threads."""
    torch.set_num_threads(threads)
    circuit = make_circuit(problem)
    weights, head_weight, head_bias = (
        torch.nn.Parameter(torch.tensor(array)) for array in (problem.weights, problem.head_weight, problem.head_bias)
    )
    parameters = [weights, head_weight, head_bias]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    inputs, labels = torch.tensor(problem.inputs), torch.tensor(problem.labels)
    upsampling = torch.tensor(problem.upsampling())
    solver = get_deq(
        f_solver="broyden",
        b_solver="broyden",
        f_max_iter=problem.solver_steps,
        b_max_iter=problem.solver_steps,
        f_tol=TOLERANCE,
        b_tol=TOLERANCE,
        f_stop_mode="rel",
        b_stop_mode="rel",
        hook_ift=True,
    )

    def values(state: torch.Tensor) -> torch.Tensor:
        outcome = circuit(inputs + state @ upsampling.T, weights)
        return torch.stack(outcome, dim=1).to(state.dtype)

    def step() -> tuple[float, float]:
        optimizer.zero_grad()
        states, info = solver(values, inputs.new_zeros(len(inputs), problem.num_qubits))
        features = torch.relu(states[-1] @ upsampling.T)
        loss = cross_entropy(features @ head_weight.T + head_bias, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return loss.item(), info["rel_lowest"].mean().item()

    return step


def make_circuit(problem: Problem) -> qml.QNode:
    """Encoder, ansatz and <Z_w> of every wire as one QNode over a batch of encoder inputs."""
    wires = range(problem.num_qubits)

    @qml.qnode(qml.device("default.qubit", wires=problem.num_qubits), interface="torch", diff_method="backprop")
    def circuit(u: torch.Tensor, weights: torch.Tensor) -> list[qml.measurements.ExpectationMP]:
        if problem.encoding == "amplitude":
            qml.AmplitudeEmbedding(u, wires=wires, pad_with=0.0, normalize=True)
        for rotation in problem.rotations:
            GATES[rotation.name](u[:, list(rotation.features)].sum(1), wires=rotation.wire)
        for gate in problem.gates:
            apply_gate(gate, weights)
        return [qml.expval(qml.PauliZ(wire)) for wire in wires]

    return circuit


def apply_gate(gate: Gate, weights: torch.Tensor) -> None:
    """Queue one gate of the ansatz."""
    if gate.weight is None:
        GATES[gate.name](wires=gate.wires)
    else:
        GATES[gate.name](weights[gate.weight], wires=gate.wires)


if __name__ == "__main__":
    serve(make_step)
