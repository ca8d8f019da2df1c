"""TensorCircuit-NG + JAX with this project's closed forms: its mathematics in another stack, in one jitted step.

TensorCircuit contracts V(θ), the columns of U(θ) that the encoder can reach, as one tensor network. With it the model
function is a closed form, so that a solver step runs no circuit; ``tensorcircuit_unitary.py`` does without:

    amplitude   m_j(q) = (a_j + B_j q + qᵀ C_j q) / ‖x + P q‖²,     a_j, B_j, C_j from V x and V P
    angle       m_j(q) = Σ_st c_jst r_s(q) r_t(q),                  c_j: Pauli coefficients of V† Z_j V, r: Bloch products
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum
import optax
import tensorcircuit as tc
import tensornetwork as tn
from jax.flatten_util import ravel_pytree
from problem import CLIP_NORM, LEARNING_RATE, TOLERANCE, Problem, Step, serve

Array = Any
Tree = Any


@dataclass(frozen=True, eq=False)
class Model:
    """Closed form of m: ``prepare(V, x)`` gives what the solver needs, ``apply(V, shared, q, x)`` is differentiable in V."""

    states: int
    solver_steps: int
    prepare: Callable[[Array, Array], Tree]
    values: Callable[[Tree, Array], Array]
    jacobian: Callable[[Tree, Array], Array]
    apply: Callable[[Array, Tree, Array, Array], Array]


def make_step(problem: Problem, threads: int) -> Step:
    """Compile the step; XLA takes its number of threads from the environment, which ``run.py`` sets."""
    model = amplitude_model(problem) if problem.encoding == "amplitude" else angle_model(problem)

    def logits_of(p: Tree, inputs: Array) -> tuple[Array, Array]:
        columns = reachable_columns(problem, p["weights"])
        state, residual = equilibrium(model, columns, inputs)
        head = p["head_weight"].reshape(-1, problem.num_qubits, problem.num_qubits).sum(2)
        return jax.nn.relu(state) @ head.T + p["head_bias"], residual

    return jitted_step(problem, logits_of)


def jitted_step(problem: Problem, logits_of: Callable[[Tree, Array], tuple[Array, Array]]) -> Step:
    """Cross-entropy, clipped Adam and one jitted update around ``logits_of(params, x)``: logits and mean residual."""
    tc.set_backend("jax")
    tc.set_dtype("complex64")
    tc.set_contractor("custom", optimizer=opt_einsum.RandomGreedy(max_repeats=64))
    names = ("weights", "head_weight", "head_bias")
    params, unravel = ravel_pytree({name: jnp.array(getattr(problem, name)) for name in names})

    def loss_of(params: Array, inputs: Array, labels: Array) -> tuple[Array, Array]:
        logits, residual = logits_of(unravel(params), inputs)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), residual

    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adam(LEARNING_RATE))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Array, moments: Tree, inputs: Array, labels: Array) -> tuple[Array, Tree, Array]:
        (loss, residual), grads = jax.value_and_grad(loss_of, has_aux=True)(params, inputs, labels)
        changes, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, changes), moments, jnp.stack([loss, residual])

    moments = optimizer.init(params)
    inputs, labels = jnp.array(problem.inputs), jnp.array(problem.labels, dtype=jnp.int32)

    def step() -> tuple[float, float]:
        nonlocal params, moments
        params, moments, report = update(params, moments, inputs, labels)
        loss, residual = np.asarray(report)
        return float(loss), float(residual)

    return step


def reachable_columns(problem: Problem, weights: Array) -> Array:
    """Contract V(θ), (2^n, 2^live), from identity legs on the live wires and |0> on the others."""
    n, live = problem.num_qubits, problem.live_wires
    legs: list[Any] = [tn.Node(np.array([1, 0], dtype=np.complex64))[0] for _ in range(n + len(live))]
    for column, wire in enumerate(live):
        identity = tn.Node(np.eye(2, dtype=np.complex64))
        legs[wire], legs[n + column] = identity[0], identity[1]
    circuit = tc.Circuit(n + len(live), mps_inputs=tc.QuVector(legs))
    for wire in problem.turned_wires:
        circuit.sd(wire)
    for gate in problem.gates:
        if gate.name == "sx":
            circuit.rx(*gate.wires, theta=np.pi / 2)
        elif gate.weight is None:
            getattr(circuit, gate.name)(*gate.wires)
        else:
            getattr(circuit, gate.name)(*gate.wires, theta=weights[gate.weight])
    return circuit.state().reshape(2**n, 2 ** len(live))


def amplitude_model(problem: Problem) -> Model:
    n, p = problem.num_qubits, problem.upsampling()
    signs = np.tile(problem.signs(), 2)

    def real_columns(columns: Array) -> Array:
        return jnp.concatenate([columns.real, columns.imag])[:, : problem.num_features]

    def prepare(columns: Array, x: Array) -> Tree:
        v = real_columns(columns)
        psi, w = x @ v.T, v @ p
        ap = v.T @ (signs.T[:, :, None] * w[:, None]).reshape(-1, n * n)
        return {
            "psi": psi,
            "w": w,
            "a": psi**2 @ signs.T,
            "b": 2 * (x @ ap).reshape(-1, n, n),
            "c": (p.T @ ap).reshape(n, n * n),
            "xx": (x * x).sum(1, keepdims=True),
            "xp": x @ p,
        }

    def norm(s: Tree, q: Array) -> Array:
        return s["xx"] + ((2 * s["xp"] + n * q) * q).sum(1, keepdims=True)

    def values(s: Tree, q: Array) -> Array:
        slope = s["b"] + (q @ s["c"]).reshape(-1, n, n)
        return (s["a"] + jnp.einsum("bjk,bk->bj", slope, q)) / norm(s, q)

    def jacobian(s: Tree, q: Array) -> Array:
        m = values(s, q)[:, :, None]
        slope = s["b"] + 2 * (q @ s["c"]).reshape(-1, n, n)
        return (slope - 2 * m * (s["xp"] + n * q)[:, None]) / norm(s, q)[:, :, None]

    def apply(columns: Array, s: Tree, q: Array, x: Array) -> Array:
        u = x + q @ p.T
        psi = known_product(real_columns(columns), u, s["psi"] + q @ s["w"].T)
        return psi**2 @ signs.T / norm(s, q)

    return Model(n, problem.solver_steps, prepare, values, jacobian, apply)


@jax.custom_vjp
def known_product(v: Array, u: Array, product: Array) -> Array:
    """u Vᵀ where the product is known already and only its derivative with respect to V is wanted."""
    return product


known_product.defvjp(lambda v, u, product: (product, u), lambda u, g: (g.T @ u, jnp.zeros_like(u), jnp.zeros_like(g)))


def angle_model(problem: Problem) -> Model:
    n, live, p = problem.num_qubits, problem.live_wires, problem.upsampling()
    split = len(live) // 2
    layers = problem.encoder_layers()
    real = len(layers) == 1
    left, right = pauli_products(split, real), pauli_products(len(live) - split, real)

    def coefficients(columns: Array) -> Array:
        dims = (left.shape[1], right.shape[1])
        a = observables(columns, n, real).reshape(n, *dims, *dims)
        return jnp.einsum("jlmt,sml->jst", jnp.einsum("jlrmq,tqr->jlmt", a, right), left).real

    def prepare(columns: Array, x: Array) -> Tree:
        offsets = [x @ f.T for _, f in layers]
        return coefficients(columns), [(jnp.cos(t), jnp.sin(t)) for t in offsets]

    def bloch(offsets: list[tuple[Array, Array]], q: Array) -> tuple[Array, Array]:
        zero = jnp.zeros_like(offsets[0][0])
        r = (zero, zero, zero + 1)
        for (name, f), (c, s) in zip(layers, offsets, strict=True):
            turn = q @ distinct_columns((f @ p).T)
            cq, sq = jnp.cos(turn), jnp.sin(turn)
            r = rotate(name, r, c * cq - s * sq, s * cq + c * sq)
        wires = jnp.stack([zero + 1, *((r[0], r[2]) if real else r)], axis=2)
        return outer(wires[:, :split]), outer(wires[:, split:])

    def values(shared: Tree, q: Array) -> Array:
        c, offsets = shared
        s, t = bloch(offsets, q)
        return jnp.einsum("bjs,bs->bj", jnp.einsum("bt,jst->bjs", t, c), s)

    def jacobian(shared: Tree, q: Array) -> Array:
        c, offsets = shared
        s, t = bloch(offsets, q)
        units = jnp.broadcast_to(jnp.eye(n)[:, None], (n, *q.shape))
        ds, dt = jax.vmap(lambda e: jax.jvp(partial(bloch, offsets), (q,), (e,))[1])(units)
        on_left = jnp.einsum("bjs,kbs->bjk", jnp.einsum("bt,jst->bjs", t, c), ds)
        return on_left + jnp.einsum("bjt,kbt->bjk", jnp.einsum("bs,jst->bjt", s, c), dt)

    def apply(columns: Array, shared: Tree, q: Array, x: Array) -> Array:
        return values((coefficients(columns), shared[1]), q)

    return Model(n, problem.solver_steps, prepare, values, jacobian, apply)


def pauli_products(count: int, real: bool) -> np.ndarray:
    """Products of ``count`` Pauli matrices over 2, (s, 2^count, 2^count); only I, X, Z where all states are real."""
    paulis = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]) / 2
    single = paulis[[0, 1, 3]].real.astype(np.float32) if real else paulis.astype(np.complex64)
    product = np.ones((1, 1, 1), dtype=single.dtype)
    for _ in range(count):
        size = 2 * product.shape[1]
        product = np.einsum("sab,tcd->stacbd", product, single).reshape(-1, size, size)
    return product


def observables(columns: Array, num_qubits: int, real: bool) -> Array:
    """A_j = V† Z_j V, (n, d, d), or its real part: one half of the bits is summed before the other half's signs."""
    half = num_qubits // 2
    bits = np.arange(2**half) >> np.arange(half - 1, -1, -1)[:, None]
    signs = (1.0 - 2.0 * (bits & 1)).astype(np.float32)
    v = jnp.stack([columns.real, columns.imag]) if real else columns[None]
    v = v.reshape(len(v), 2**half, 2**half, -1)
    halves = [v.transpose(axes).reshape(2**half, -1, v.shape[-1]) for axes in ((1, 0, 2, 3), (2, 0, 1, 3))]
    grams = [(real_gram if real else gram)(part).reshape(2**half, -1) for part in halves]
    return jnp.concatenate([signs @ part for part in grams]).reshape(num_qubits, v.shape[-1], -1)


def gram(v: Array) -> Array:
    return jnp.einsum("lra,lrb->lab", v.conj(), v)


@jax.custom_vjp
def real_gram(v: Array) -> Array:
    """Vᵀ V with a derivative of one product, V (G + Gᵀ), instead of two."""
    return gram(v)


real_gram.defvjp(lambda v: (gram(v), v), lambda v, g: (jnp.einsum("lra,lab->lrb", v, g + jnp.swapaxes(g, 1, 2)),))


def distinct_columns(matrix: np.ndarray) -> np.ndarray:
    """One column where all columns are equal, so that the sine of a shared angle is taken once."""
    return matrix[:, :1] if (matrix == matrix[:, :1]).all() else matrix


def rotate(name: str, r: tuple[Array, Array, Array], c: Array, s: Array) -> tuple[Array, Array, Array]:
    """Rotate Bloch vectors (x, y, z) about the axis of RX, RY or RZ."""
    x, y, z = r
    if name == "rx":
        return x, c * y - s * z, s * y + c * z
    if name == "ry":
        return c * x + s * z, y, c * z - s * x
    return c * x - s * y, s * x + c * y, z


def outer(wires: Array) -> Array:
    """Kronecker product over the wires of (B, wires, k): (B, k^wires)."""
    factors = [wires[:, w] for w in range(wires.shape[1])]
    return reduce(lambda s, t: (s[:, :, None] * t[:, None]).reshape(len(s), -1), factors)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def equilibrium(model: Model, columns: Array, x: Array) -> tuple[Array, Array]:
    """Solve for q* from zero and apply m once more: m(x + P q*), (B, n), and the mean relative residual."""
    return equilibrium_forward(model, columns, x)[0]


def equilibrium_forward(model: Model, columns: Array, x: Array) -> tuple[tuple[Array, Array], Tree]:
    shared = model.prepare(columns, x)
    q, residual = broyden(partial(model.values, shared), jnp.zeros((len(x), model.states)), model.solver_steps)
    return (model.values(shared, q), residual), (columns, shared, q, x)


def equilibrium_backward(model: Model, kept: Tree, cotangents: tuple[Array, Array]) -> tuple[Array, Array]:
    columns, shared, q, x = kept
    transposed = jnp.swapaxes(model.jacobian(shared, q), 1, 2)
    y = jnp.linalg.solve(jnp.eye(model.states) - transposed, cotangents[0][:, :, None])[:, :, 0]
    _, pull = jax.vjp(lambda v: model.apply(v, shared, q, x), columns)
    return pull(y)[0], jnp.zeros_like(x)


equilibrium.defvjp(equilibrium_forward, equilibrium_backward)


def broyden(f: Callable[[Array], Array], start: Array, steps: int) -> tuple[Array, Array]:
    """Good Broyden for q = f(q), (B, K), from H = -I; every sample's best iterate and their mean relative residual."""
    batch, k = start.shape

    def proceed(carry: Tree) -> Array:
        return (carry["steps"] < steps) & (carry["total"] >= TOLERANCE)

    def advance(carry: Tree) -> Tree:
        h, old = carry["h"], carry["g"]
        s = -jnp.einsum("bij,bj->bi", h, old)
        q = carry["q"] + s
        g = f(q) - q
        v = jnp.einsum("bi,bij->bj", s, h)
        slope = jnp.einsum("bj,bj->b", v, g - old)[:, None]
        u = jnp.where(slope == 0, 0, (s - jnp.einsum("bij,bj->bi", h, g - old)) / slope)
        squares, scale = jnp.einsum("bj,bj->b", g, g), jnp.einsum("bj,bj->b", g + q, g + q)
        relative = jnp.sqrt(squares) / (jnp.sqrt(scale) + 1e-9)
        better = relative < carry["relative"]
        return {
            "steps": carry["steps"] + 1,
            "q": q,
            "g": g,
            "h": h + u[:, :, None] * v[:, None],
            "best": jnp.where(better[:, None], q, carry["best"]),
            "relative": jnp.where(better, relative, carry["relative"]),
            "total": jnp.sqrt(squares.sum()) / (jnp.sqrt(scale.sum()) + 1e-9),
        }

    first = {
        "steps": 0,
        "q": start,
        "g": f(start) - start,
        "h": jnp.broadcast_to(-jnp.eye(k), (batch, k, k)),
        "best": start,
        "relative": jnp.full(batch, jnp.inf),
        "total": jnp.inf,
    }
    last = jax.lax.while_loop(proceed, advance, first)
    return last["best"], last["relative"].mean()


if __name__ == "__main__":
    serve(make_step)
