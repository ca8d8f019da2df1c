"""PyTorch by hand: V(θ), the columns of U(θ) that the encoder can reach, is built once per step in complex64.

The whole batch and all solver steps share it: m_j = Σ_s sign_js |(V phi)_s|² / ‖phi‖², phi the encoder's state. Gates are
merged into blocks on at most five wires, whose matrices come from one batched product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from problem import CLIP_NORM, LEARNING_RATE, TOLERANCE, Gate, Problem, Step, serve
from torch.nn.functional import cross_entropy

BLOCK_WIRES = 5
X, Y, Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])
FIXED = {
    "h": (X + Z) / np.sqrt(2),
    "sx": np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
    "sdg": np.diag([1, -1j]),
    "cnot": np.kron(np.diag([1, 0]), np.eye(2)) + np.kron(np.diag([0, 1]), X),
}
AXES = {"rx": X, "ry": Y, "rz": Z, "crx": X}

Columns = Callable[[torch.Tensor], torch.Tensor]


def make_step(problem: Problem, threads: int) -> Step:
    """Build the training step on ``threads`` threads."""
    torch.set_num_threads(threads if problem.num_qubits > 4 else 1)
    columns, encode = make_columns(problem), make_encoder(problem)
    unnormalized = problem.encoding == "amplitude"
    weights, head_weight, head_bias = (
        torch.nn.Parameter(torch.tensor(array)) for array in (problem.weights, problem.head_weight, problem.head_bias)
    )
    parameters = [weights, head_weight, head_bias]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    inputs, labels = torch.tensor(problem.inputs), torch.tensor(problem.labels)
    upsampling, signs = torch.tensor(problem.upsampling()), torch.tensor(np.tile(problem.signs(), 2).T.copy())

    def values(v: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        phi = encode(inputs + state @ upsampling.T)
        numerator = (phi @ v.T).square() @ signs
        return numerator / phi.square().sum(1, keepdim=True) if unnormalized else numerator

    def step() -> tuple[float, float]:
        optimizer.zero_grad()
        v = real_form(columns(weights), complex_states=len(problem.encoder_layers()) > 1)
        frozen = v.detach()
        with torch.no_grad():
            start = inputs.new_zeros(len(inputs), problem.num_qubits)
            solved, residual = broyden(lambda q: values(frozen, q), start, problem.solver_steps)
        solved.requires_grad_()
        state = values(v, solved)

        def adjoint(gradient: torch.Tensor) -> torch.Tensor:
            def product(y: torch.Tensor) -> torch.Tensor:
                return torch.autograd.grad(state, solved, y, retain_graph=True)[0] + gradient

            hook.remove()
            return broyden(product, torch.zeros_like(gradient), problem.solver_steps)[0]

        hook = state.register_hook(adjoint)
        features = torch.relu(state @ upsampling.T)
        loss = cross_entropy(features @ head_weight.T + head_bias, labels)
        loss.backward(inputs=parameters)
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        return loss.item(), residual

    return step


def make_encoder(problem: Problem) -> Callable[[torch.Tensor], torch.Tensor]:
    """The state phi(u) on the live wires, (B, D) or (B, 2^live); complex ones as real part beside imaginary part."""
    if problem.encoding == "amplitude":
        return lambda u: u
    layers = [(name, torch.tensor(angles.T)) for name, angles in problem.encoder_layers()]

    def encode(u: torch.Tensor) -> torch.Tensor:
        half = [(u @ angles) / 2 for _, angles in layers]
        zero, one = half[0].cos(), half[0].sin()
        for (name, _), angle in zip(layers[1:], half[1:], strict=True):
            zero, one = rotate(name, zero, one, angle)
        wires = torch.stack([zero, one], dim=2).unbind(1)
        phi = reduce(lambda s, t: (s[:, :, None] * t[:, None]).flatten(1), wires)
        return torch.cat([phi.real, phi.imag], dim=1) if phi.is_complex() else phi

    if layers[0][0] != "ry":
        raise ValueError("the encoder's first layer has to be RY.")
    return encode


def rotate(name: str, zero: torch.Tensor, one: torch.Tensor, half: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply RX, RY or RZ by twice ``half`` to the amplitudes of |0> and |1>, (B, wires) each."""
    if name == "rz":
        phase = torch.polar(torch.ones_like(half), half)
        return zero * phase.conj(), one * phase
    c, s = half.cos(), half.sin()
    if name == "ry":
        return c * zero - s * one, s * zero + c * one
    return c * zero - 1j * s * one, c * one - 1j * s * zero


def real_form(v: torch.Tensor, complex_states: bool) -> torch.Tensor:
    """V for real arithmetic: real rows over imaginary rows, applied to phi or to [Re phi, Im phi]."""
    on_real = torch.cat([v.real, v.imag])
    return torch.cat([on_real, torch.cat([-v.imag, v.real])], dim=1) if complex_states else on_real


def make_columns(problem: Problem) -> Columns:
    """Weights -> V, (2^n, D) for amplitude encoding or (2^n, 2^live) for angle encoding."""
    n, live = problem.num_qubits, problem.live_wires
    gates = tuple(Gate("sdg", (wire,), None) for wire in problem.turned_wires) + problem.gates
    blocks = split_blocks(gates, min(n, BLOCK_WIRES))
    size = 2 ** min(n, BLOCK_WIRES)
    longest = 2 ** int(np.ceil(np.log2(max(len(block) for block, _ in blocks))))
    identity = Gate("identity", (), None)
    padded = [(gate, wires) for block, wires in blocks for gate in [*block, *[identity] * (longest - len(block))]]
    parts = np.array([embedded_parts(gate, wires) for gate, wires in padded], dtype=np.complex64)
    fixed, cosine, sine = torch.tensor(parts).unbind(1)
    index = torch.tensor([0 if gate.weight is None else gate.weight for gate, _ in padded])
    start = np.zeros((2**n, 2 ** len(live)), dtype=np.complex64)
    rows = sum(((np.arange(2 ** len(live)) >> k) & 1) << (n - 1 - wire) for k, wire in enumerate(reversed(live)))
    start[rows, np.arange(2 ** len(live))] = 1
    if problem.encoding == "amplitude":
        start = start[:, : problem.num_features]
    first = torch.tensor(np.ascontiguousarray(start))

    def columns(weights: torch.Tensor) -> torch.Tensor:
        half = weights[index, None, None] / 2
        matrices = (fixed + half.cos() * cosine + half.sin() * sine).view(len(blocks), longest, size, size)
        while matrices.shape[1] > 1:
            matrices = matrices[:, 1::2] @ matrices[:, ::2]
        v = first
        for matrix, (_, wires) in zip(matrices[:, 0], blocks, strict=True):
            v = apply_block(matrix, wires, v, n)
        return v

    return columns


def split_blocks(gates: tuple[Gate, ...], most: int) -> list[tuple[list[Gate], tuple[int, ...]]]:
    """Merge gates greedily into blocks on exactly ``most`` wires; a gate may pass gates on other wires."""
    rest, blocks = list(gates), []
    everything = sorted({wire for gate in gates for wire in gate.wires})
    while rest:
        taken: list[Gate] = []
        wires: set[int] = set()
        blocked: set[int] = set()
        left = []
        for gate in rest:
            if not blocked & set(gate.wires) and len(wires | set(gate.wires)) <= most:
                taken.append(gate)
                wires |= set(gate.wires)
            else:
                blocked |= set(gate.wires)
                left.append(gate)
        spare = [wire for wire in everything if wire not in wires]
        blocks.append((taken, tuple(sorted([*wires, *spare[: most - len(wires)]]))))
        rest = left
    return blocks


def embedded_parts(gate: Gate, wires: tuple[int, ...]) -> np.ndarray:
    """A, B and C of the gate's matrix A + cos(θ/2) B + sin(θ/2) C on the block's wires, (3, 2^k, 2^k)."""
    zero = np.zeros((2, 2))
    if gate.name in FIXED:
        parts = [FIXED[gate.name], 0 * FIXED[gate.name], 0 * FIXED[gate.name]]
    elif gate.name == "crx":
        off, on = np.diag([1, 0]), np.diag([0, 1])
        parts = [np.kron(off, np.eye(2)), np.kron(on, np.eye(2)), np.kron(on, -1j * X)]
    elif gate.name in AXES:
        parts = [zero, np.eye(2), -1j * AXES[gate.name]]
    else:
        parts = [np.eye(1), np.zeros((1, 1)), np.zeros((1, 1))]
    return np.array([embed(part, gate.wires, wires) for part in parts])


def embed(matrix: np.ndarray, gate_wires: tuple[int, ...], wires: tuple[int, ...]) -> np.ndarray:
    """The matrix of a gate on some of the wires as one on all of them."""
    k, g = len(wires), len(gate_wires)
    others = [wire for wire in wires if wire not in gate_wires]
    order = [[*gate_wires, *others].index(wire) for wire in wires]
    full = np.kron(matrix, np.eye(2 ** (k - g))).reshape((2,) * (2 * k))
    return full.transpose([*order, *[k + axis for axis in order]]).reshape(2**k, 2**k)


def apply_block(matrix: torch.Tensor, wires: tuple[int, ...], v: torch.Tensor, n: int) -> torch.Tensor:
    """Apply a block's matrix to its wires' axis of V, (2^n, columns)."""
    others = [wire for wire in range(n) if wire not in wires]
    order = [*wires, *others, n]
    tensor = v.reshape((2,) * n + (-1,)).permute(order)
    moved = (matrix @ tensor.reshape(len(matrix), -1)).view(tensor.shape)
    return moved.permute([order.index(axis) for axis in range(n + 1)]).reshape(2**n, -1)


def broyden(f: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int) -> tuple[torch.Tensor, float]:
    """Good Broyden for q = f(q), (B, K), from H = -I; every sample's best iterate and their mean relative residual."""
    q, g = start, f(start) - start
    h = -torch.eye(q.shape[1]).repeat(len(q), 1, 1)
    best, lowest = q, torch.full((len(q),), torch.inf)
    for _ in range(steps):
        s = -torch.bmm(h, g[:, :, None])
        q, old = q + s[:, :, 0], g
        g = f(q) - q
        residual, scale = g.norm(dim=1), (g + q).norm(dim=1)
        relative = residual / (scale + 1e-9)
        better = relative < lowest
        best = torch.where(better[:, None], q, best)
        lowest = torch.where(better, relative, lowest)
        if residual.norm() < TOLERANCE * scale.norm():
            break
        change = (g - old)[:, :, None]
        v = torch.bmm(s.mT, h)
        u = (s - torch.bmm(h, change)) / torch.bmm(v, change)
        h = torch.baddbmm(h, u.nan_to_num(0.0, 0.0, 0.0), v)
    return best, lowest.mean().item()


if __name__ == "__main__":
    serve(make_step)
