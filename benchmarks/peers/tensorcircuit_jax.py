"""TensorCircuit-NG + JAX: the step with everything the batch shares computed once, jitted into one XLA program.

TensorCircuit contracts V(θ), the columns of U(θ) that the encoder can reach, as one tensor network. The state observables
A_j = Re(V† Z_j V) then give m_j(u) in closed form: u'A_j u / u'u for amplitude encoding, which along u = x + P q is a ratio
of two quadratics in q; and a polynomial in the wires' Bloch vectors, m_j = Σ_s c_js Π_w r_w,s(u), for angle encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import opt_einsum
import optax
import tensorcircuit as tc
import tensornetwork as tn
from problem import CLIP_NORM, LEARNING_RATE, MAX_STEPS, TOLERANCE, Problem

Array = Any
Values = Callable[[Any, Array], Array]


def make_step(problem: Problem, threads: int) -> Callable[[], tuple[float, float]]:
    tc.set_backend("jax")
    tc.set_dtype("complex64")
    tc.set_contractor("custom", optimizer=opt_einsum.RandomGreedy(max_repeats=64, max_time=60))
    prepare, values = (amplitude_model if problem.encoding == "amplitude" else angle_model)(problem)
    upsampling = problem.upsampling()

    def loss_of(params: dict[str, Array], inputs: Array, labels: Array) -> tuple[Array, Array]:
        shared = prepare(params["weights"], inputs)
        state, residual = equilibrium(values, shared, jnp.zeros((len(inputs), problem.num_qubits)))
        features = jax.nn.relu(state @ upsampling.T)
        logits = features @ params["head_weight"].T + params["head_bias"]
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), residual

    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adam(LEARNING_RATE))

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, moments: Any, inputs: Array, labels: Array) -> tuple[Any, Any, Array, Array]:
        (loss, residual), grads = jax.value_and_grad(loss_of, has_aux=True)(params, inputs, labels)
        changes, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, changes), moments, loss, residual

    params = {name: jnp.array(getattr(problem, name)) for name in ("weights", "head_weight", "head_bias")}
    moments = optimizer.init(params)
    inputs, labels = jnp.array(problem.inputs), jnp.array(problem.labels, dtype=jnp.int32)

    def step() -> tuple[float, float]:
        nonlocal params, moments
        params, moments, loss, residual = update(params, moments, inputs, labels)
        return float(loss), float(residual)

    return step


def reachable_columns(problem: Problem, weights: Array) -> Array:
    """Contract V(θ), (2^n, 2^live), from identity legs on the live wires and |0> on the others."""
    n, live = problem.num_qubits, problem.live_wires
    legs: list[Any] = [None] * (n + len(live))
    for wire in range(n):
        if wire in live:
            node = tn.Node(np.eye(2, dtype=np.complex64))
            legs[wire], legs[n + live.index(wire)] = node[0], node[1]
        else:
            legs[wire] = tn.Node(np.array([1, 0], dtype=np.complex64))[0]
    circuit = tc.Circuit(n + len(live), mps_inputs=tc.QuVector(legs))
    for name, wire, _ in problem.rotations:
        if name == "rx" and len(problem.rotations) == n:
            circuit.sd(wire)
    for gate in problem.gates:
        if gate.name == "sx":
            circuit.rx(*gate.wires, theta=np.pi / 2)
        elif gate.weight is None:
            getattr(circuit, gate.name)(*gate.wires)
        else:
            getattr(circuit, gate.name)(*gate.wires, theta=weights[gate.weight])
    return circuit.state().reshape(2**n, 2 ** len(live))


def split_gram(columns: Array, num_qubits: int, complex_valued: bool) -> Array:
    """A_j = V† Z_j V, (n, d, d), summing one half of the bits before the signs of the other half are applied."""
    half = num_qubits // 2
    signs = bit_signs(half)
    if complex_valued:
        v = columns.reshape(2**half, 2**half, -1)
        left = jnp.einsum("lra,lrb->lab", v.conj(), v)
        right = jnp.einsum("lra,lrb->rab", v.conj(), v)
    else:
        v = jnp.stack([columns.real, columns.imag]).reshape(2, 2**half, 2**half, -1)
        left = jnp.einsum("clra,clrb->lab", v, v)
        right = jnp.einsum("clra,clrb->rab", v, v)
    return jnp.concatenate([jnp.einsum("jl,lab->jab", signs, left), jnp.einsum("jl,lab->jab", signs, right)])


def bit_signs(num_qubits: int) -> np.ndarray:
    """Diagonals of Z_0 .. Z_{n-1}, (n, 2^n)."""
    bits = np.arange(2**num_qubits) >> np.arange(num_qubits - 1, -1, -1)[:, None]
    return (1.0 - 2.0 * (bits & 1)).astype(np.float32)


def amplitude_model(problem: Problem) -> tuple[Callable[[Array, Array], Any], Values]:
    n, width, p = problem.num_qubits, problem.num_features, problem.upsampling()

    def prepare(weights: Array, x: Array) -> Any:
        columns = reachable_columns(problem, weights)[:, :width]
        a = split_gram(columns, n, complex_valued=False)
        ap = jnp.einsum("jde,ek->djk", a, p)
        return {
            "constant": jnp.einsum("bje,be->bj", jnp.einsum("bd,jde->bje", x, a), x),
            "linear": 2 * jnp.einsum("bd,djk->bjk", x, ap),
            "quadratic": jnp.einsum("dl,djk->jkl", p, ap),
            "norm": (x * x).sum(1),
            "cross": 2 * x @ p,
        }

    def values(c: Any, q: Array) -> Array:
        numerator = c["constant"] + jnp.einsum("bjk,bk->bj", c["linear"], q)
        numerator += jnp.einsum("bjk,bk->bj", jnp.einsum("jkl,bl->bjk", c["quadratic"], q), q)
        return numerator / (c["norm"] + (c["cross"] * q).sum(1) + n * (q * q).sum(1))[:, None]

    return prepare, values


def angle_model(problem: Problem) -> tuple[Callable[[Array, Array], Any], Values]:
    n, live, p = problem.num_qubits, problem.live_wires, problem.upsampling()
    single = len(problem.rotations) == n
    paulis = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    paulis = paulis[[0, 1, 3]].real if single else paulis
    half = len(live) // 2
    kron = lambda count: reduce(
        lambda s, t: np.einsum("sab,tcd->stacbd", s, t).reshape(len(s) * len(t), *(2 * s.shape[1],) * 2),
        [paulis / 2] * count,
    ).astype(np.float32 if single else np.complex64)
    left, right = kron(half), kron(len(live) - half)

    def prepare(weights: Array, x: Array) -> Any:
        a = split_gram(reachable_columns(problem, weights), n, complex_valued=not single)
        a = a.reshape(n, left.shape[1], right.shape[1], left.shape[1], right.shape[1])
        coefs = jnp.einsum("jlrmq,tqr->jlmt", a, right)
        coefs = jnp.einsum("jlmt,sml->sjt", coefs, left).real
        return coefs, x

    def bloch(u: Array) -> dict[int, list[Array]]:
        one = jnp.ones(len(u))
        if single:
            angle = {w: u[:, list(f)].sum(1) for name, w, f in problem.rotations if w in live}
            return {w: [one, jnp.sin(t), jnp.cos(t)] for w, t in angle.items()}
        vectors = {w: [one, 0 * one, 0 * one, one] for w in live}
        for name, w, f in problem.rotations:
            t = u[:, list(f)].sum(1)
            vectors[w] = rotate(name, vectors[w], jnp.cos(t), jnp.sin(t))
        return vectors

    def product(parts: list[list[Array]]) -> Array:
        return reduce(lambda s, t: (s[:, :, None] * t[:, None]).reshape(len(s), -1), [jnp.stack(v, 1) for v in parts])

    def values(shared: Any, q: Array) -> Array:
        coefs, x = shared
        vectors = bloch(x + q @ p.T)
        s = product([vectors[w] for w in live[:half]])
        t = product([vectors[w] for w in live[half:]])
        return jnp.einsum("bjt,bt->bj", jnp.einsum("bs,sjt->bjt", s, coefs), t)

    return prepare, values


def rotate(name: str, r: list[Array], c: Array, s: Array) -> list[Array]:
    one, x, y, z = r
    if name == "rx":
        return [one, x, c * y - s * z, s * y + c * z]
    if name == "ry":
        return [one, c * x + s * z, y, c * z - s * x]
    return [one, c * x - s * y, s * x + c * y, z]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def equilibrium(values: Values, shared: Any, start: Array) -> tuple[Array, Array]:
    return solve(values, shared, start)


def solve(values, shared, start):
    state, residual = broyden(partial(values, shared), start)
    return values(shared, state), residual


def equilibrium_forward(values, shared, start):
    state, residual = broyden(partial(values, shared), start)
    out, pull = jax.vjp(values, shared, state)
    return (out, residual), pull


def equilibrium_backward(values, pull, cotangents):
    g = cotangents[0]
    y, _ = broyden(lambda y: pull(y)[1] + g, jnp.zeros_like(g))
    return pull(y)[0], jnp.zeros_like(g)


equilibrium.defvjp(equilibrium_forward, equilibrium_backward)


def broyden(f, start):
    """Good Broyden on every sample."""
    batch, k = start.shape

    def residual_norms(q, g):
        return jnp.sqrt((g * g).sum(1)), jnp.sqrt(((g + q) ** 2).sum(1)) + 1e-9

    def body(carry):
        i, q, g, h, best, best_rel, _ = carry
        s = -jnp.einsum("bij,bj->bi", h, g)
        q = q + s
        new = f(q) - q
        dg, g = new - g, new
        vt = jnp.einsum("bi,bij->bj", s, h)
        u = s - jnp.einsum("bij,bj->bi", h, dg)
        den = (vt * dg).sum(1, keepdims=True)
        u = jnp.where(den != 0, u / den, 0)
        h = h + u[:, :, None] * vt[:, None]
        num, ref = residual_norms(q, g)
        rel = num / ref
        better = rel < best_rel
        best = jnp.where(better[:, None], q, best)
        total = jnp.sqrt((num**2).sum()) / jnp.sqrt((ref**2).sum())
        return i + 1, q, g, h, best, jnp.where(better, rel, best_rel), total

    def go(carry):
        return (carry[0] < MAX_STEPS) & (carry[-1] >= TOLERANCE)

    h = jnp.broadcast_to(-jnp.eye(k), (batch, k, k))
    init = (0, start, f(start) - start, h, start, jnp.full(batch, jnp.inf), jnp.inf)
    out = jax.lax.while_loop(go, body, init)
    return out[4], out[5].mean()
