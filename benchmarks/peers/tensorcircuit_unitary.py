"""TensorCircuit-NG + JAX as its users write it: the circuit's unitary is built once per jitted step, and then applied.

TensorCircuit contracts V(θ), the columns of U(θ) that the encoder can reach. Every solver step applies V to the states of
the whole batch; JAX differentiates that application, and Broyden solves forward and backward:

    m_j(q) = Σ_s sign_js |(V phi(x + P q))_s|²,     q* = m(q*),     y = Jᵀ y + dL/dq*

phi is u / ‖u‖ for amplitude encoding and a product of single-qubit states for angle encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from problem import Problem, Step, serve
from tensorcircuit_jax import broyden, jitted_step, reachable_columns

Array = Any
Tree = Any
Values = Callable[[Array, Array, Array], Array]


def make_step(problem: Problem, threads: int) -> Step:
    """Compile the step; XLA takes its number of threads from the environment, which ``run.py`` sets."""
    upsampling, signs = problem.upsampling(), problem.signs()
    encode = normalize if problem.encoding == "amplitude" else partial(product_states, problem.encoder_layers())

    def values(columns: Array, x: Array, q: Array) -> Array:
        real, imag = amplitudes(columns, encode(x + q @ upsampling.T))
        return (real**2 + imag**2) @ signs.T

    equilibrium = implicit(values, problem.num_qubits, problem.solver_steps)

    def logits_of(p: Tree, inputs: Array) -> tuple[Array, Array]:
        columns = reachable_columns(problem, p["weights"])
        if problem.encoding == "amplitude":
            columns = columns[:, : problem.num_features]
        state, residual = equilibrium(columns, inputs)
        return jax.nn.relu(state @ upsampling.T) @ p["head_weight"].T + p["head_bias"], residual

    return jitted_step(problem, logits_of)


def amplitudes(columns: Array, phi: Array) -> tuple[Array, Array]:
    """Real and imaginary part of V phi, (B, 2^n); two real products where phi is real, which XLA computes faster."""
    if jnp.iscomplexobj(phi):
        psi = phi @ columns.T
        return psi.real, psi.imag
    return phi @ columns.real.T, phi @ columns.imag.T


def normalize(u: Array) -> Array:
    """u / ‖u‖, (B, D)."""
    return u / jnp.linalg.norm(u, axis=1, keepdims=True)


def product_states(layers: list[tuple[str, Any]], u: Array) -> Array:
    """Rotate every live wire of |0...0> by the layers' angles and take the Kronecker product, (B, 2^live)."""
    half = [(name, u @ angles.T / 2) for name, angles in layers]
    zero, one = jnp.ones_like(half[0][1]), jnp.zeros_like(half[0][1])
    for name, angle in half:
        c, s = jnp.cos(angle), jnp.sin(angle)
        if name == "ry":
            zero, one = c * zero - s * one, s * zero + c * one
        elif name == "rx":
            zero, one = c * zero - 1j * s * one, c * one - 1j * s * zero
        else:
            zero, one = (c - 1j * s) * zero, (c + 1j * s) * one
    wires = jnp.stack([zero, one], axis=2)
    factors = [wires[:, w] for w in range(wires.shape[1])]
    return reduce(lambda s, t: (s[:, :, None] * t[:, None]).reshape(len(s), -1), factors)


def implicit(values: Values, states: int, steps: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The function (V, x) -> m(q*), (B, n), and mean relative residual, differentiated at the equilibrium."""

    @jax.custom_vjp
    def equilibrium(columns: Array, x: Array) -> tuple[Array, Array]:
        return forward(columns, x)[0]

    def forward(columns: Array, x: Array) -> tuple[tuple[Array, Array], Tree]:
        q, residual = broyden(partial(values, columns, x), jnp.zeros((len(x), states)), steps)
        state, pull = jax.vjp(lambda v, q: values(v, x, q), columns, q)
        return (state, residual), (pull, x)

    def backward(kept: Tree, cotangents: tuple[Array, Array]) -> tuple[Array, Array]:
        pull, x = kept
        gradient = cotangents[0]
        y, _ = broyden(lambda y: pull(y)[1] + gradient, jnp.zeros_like(gradient), steps)
        return pull(y)[0], jnp.zeros_like(x)

    equilibrium.defvjp(forward, backward)
    return equilibrium


if __name__ == "__main__":
    serve(make_step)
