"""Estimates of Σ_bm C_bm ∂<M_m>_b/∂β_g, the gradient in the ansatz's gate angles β, from measured rows of angles.

shift    every shift of every gate:  ∂f/∂β_g = Σ_r c_r f(β + s_r e_g)
fixed    the same at D (D + 1) / 2 inputs that serve any batch of amplitude-encoded samples: with e_i and e_i + e_k,
         Σ_b C_b uuᵀ/‖u‖² = Λ = Σ_i (Λ_ii - Σ_k≠i Λ_ik) e_i e_iᵀ + Σ_i<k 2 Λ_ik (e_i + e_k)(e_i + e_k)ᵀ/2
random   N shifted pairs (b, g, s) drawn with probabilities p:  1/N Σ  c / p · C_b · (f_b(β + s e_g) - f_b(β - s e_g)),
         unbiased for any p > 0; p ∝ |c| ‖C_b‖ ‖∂β_g/∂θ‖, mixed with a uniform tenth. Drawn systematically, at equal
         distances from one random start: a pair is drawn ⌊N p⌋ or ⌈N p⌉ times, so that from N p ≥ 1 on nothing is left out
spsa     (f_b(β + ε Δ) - f_b(β - ε Δ)) / 2ε · Δ, random signs Δ per sample (Spall 1992), biased by O(ε²)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Share of the random draws that is uniform: bounds the weight of an unlikely pair.
_UNIFORM = 0.1


def _refuse(values: Array) -> Array:
    raise InputError("drawn shifts give the gradient of one scalar, not of every output of every sample")


@dataclass(frozen=True)
class Plan:
    """Rows of angles to be measured (S, E + G), and how their values (S, M) become the gradient (G,).

    `slopes` makes of them ∂<M>/∂β of every sample by itself (B, M, G), where all shifts are measured.
    """

    rows: Array
    reduce: Callable[[Array, Array], Array]
    slopes: Callable[[Array], Array] = _refuse


def gradient_plan(
    template: GateTemplate,
    base: Array,
    slopes: Array,
    cotangent: Array | None,
    sampling: Sampling,
    rng: np.random.Generator,
    inputs: Array,
) -> Plan:
    """What to measure for a weight gradient at angles `base` (B, E + G).

    Args:
        template: gates and their shift rules.
        base: angles of every sample.
        slopes: ∂β/∂θ (G, p).
        cotangent: C (B, M), which draws of "random" are weighted with; None where it is not known yet.
        sampling: which estimator.
        rng: for "random" and "spsa".
        inputs: u (B, D), for "fixed".
    """
    if sampling.gradient_method == "shift":
        return _every_shift(template, base)
    if sampling.gradient_method == "fixed":
        return _at_fixed_inputs(template, base, inputs)
    pairs = len(base) * sampling.gradient_circuits // 2
    if sampling.gradient_method == "spsa":
        return _spsa(template, base, sampling.gradient_circuits // 2, sampling.spsa_step, rng)
    weight = np.ones(len(base)) if cotangent is None else np.linalg.norm(cotangent, axis=1)
    return _random_pairs(template, base, weight, np.linalg.norm(slopes, axis=1), pairs, rng)


def _every_shift(template: GateTemplate, base: Array) -> Plan:
    first, count = template.num_encoder_angles, template.num_ansatz_angles
    rows, index, coefficients = template.shift_rows(base, np.arange(first, first + count))

    def reduce(values: Array, cotangent: Array) -> Array:
        values = values.reshape(len(base), len(index), -1)
        pulled = np.einsum("brm,bm->r", values, cotangent) * coefficients
        return np.bincount(index - first, pulled, minlength=count)

    def slopes(values: Array) -> Array:
        moves = coefficients[:, None] * np.equal.outer(index - first, np.arange(count))
        result: Array = values.reshape(len(base), len(index), -1).swapaxes(1, 2) @ moves
        return result

    return Plan(rows.reshape(-1, base.shape[1]), reduce, slopes)


def _at_fixed_inputs(template: GateTemplate, base: Array, inputs: Array) -> Plan:
    states, (rows, columns) = fixed_inputs(inputs.shape[1]), np.triu_indices(inputs.shape[1], 1)
    first = template.num_encoder_angles
    weights = np.broadcast_to(base[0, first:], (len(states), base.shape[1] - first))
    plan = _every_shift(template, np.concatenate([template.encoder_angles(states), weights], axis=1))
    unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)

    def reduce(values: Array, cotangent: Array) -> Array:
        products = np.einsum("bm,bi,bk->ikm", cotangent, unit, unit, optimize=True)
        alone = 2 * np.einsum("iim->im", products) - products.sum(axis=1)
        return plan.reduce(values, np.concatenate([alone, 2 * products[rows, columns]]))

    def slopes(values: Array) -> Array:
        alone = 2 * unit**2 - unit * unit.sum(axis=1, keepdims=True)
        shares = np.concatenate([alone, 2 * unit[:, rows] * unit[:, columns]], axis=1)
        return np.tensordot(shares, plan.slopes(values), axes=1)

    return Plan(plan.rows, reduce, slopes)


def fixed_inputs(size: int) -> Array:
    """e_i and e_i + e_k, i < k: their outer products span the symmetric matrices, (D (D + 1) / 2, D)."""
    unit, (rows, columns) = np.eye(size), np.triu_indices(size, 1)
    return np.concatenate([unit, unit[rows] + unit[columns]])


def _random_pairs(
    template: GateTemplate, base: Array, samples: Array, slopes: Array, count: int, rng: np.random.Generator
) -> Plan:
    first = template.num_encoder_angles
    # a rule is antisymmetric: each positive shift stands for a pair
    units = [
        (angle, shift, coefficient)
        for angle, rule in enumerate(template.rules[first:])
        for shift, coefficient in zip(rule.shifts, rule.coefficients, strict=True)
        if shift > 0
    ]
    angles = np.array([unit[0] for unit in units], dtype=np.intp)
    shifts, coefficients = np.array([unit[1:] for unit in units], dtype=float).reshape(-1, 2).T
    likely = np.outer(samples, np.abs(coefficients) * slopes[angles]).ravel()
    uniform = np.full(likely.size, 1 / likely.size)
    probability = (1 - _UNIFORM) * likely / likely.sum() + _UNIFORM * uniform if likely.sum() > 0 else uniform
    drawn = _systematic(probability, count, rng)
    sample, unit = np.divmod(drawn, len(units))
    rows = np.repeat(base[sample, None], 2, axis=1)
    rows[np.arange(count), 0, first + angles[unit]] += shifts[unit]
    rows[np.arange(count), 1, first + angles[unit]] -= shifts[unit]

    def reduce(values: Array, cotangent: Array) -> Array:
        values = values.reshape(count, 2, -1)
        pulled = np.vecdot(values[:, 0] - values[:, 1], cotangent[sample])
        pulled *= coefficients[unit] / (count * probability[drawn])
        return np.bincount(angles[unit], pulled, minlength=template.num_ansatz_angles)

    return Plan(rows.reshape(-1, base.shape[1]), reduce)


def _systematic(probability: Array, count: int, rng: np.random.Generator) -> Array:
    """`count` indices, each expected count · probability times; neighbours in random order, so that none hide a pattern."""
    order = rng.permutation(len(probability))
    ends = np.cumsum(probability[order])
    ends /= ends[-1]
    places = (np.arange(count) + rng.random()) / count
    chosen = order[np.minimum(np.searchsorted(ends, places, side="right"), len(order) - 1)]
    return np.sort(chosen)


def _spsa(template: GateTemplate, base: Array, repeats: int, step: float, rng: np.random.Generator) -> Plan:
    first, count = template.num_encoder_angles, template.num_ansatz_angles
    signs = rng.choice((-1.0, 1.0), size=(len(base), repeats, count))
    rows = np.repeat(np.repeat(base[:, None, None], repeats, axis=1), 2, axis=2)
    rows[:, :, 0, first:] += step * signs
    rows[:, :, 1, first:] -= step * signs

    def reduce(values: Array, cotangent: Array) -> Array:
        values = values.reshape(len(base), repeats, 2, -1)
        change = np.einsum("brm,bm->br", values[:, :, 0] - values[:, :, 1], cotangent) / (2 * step * repeats)
        return np.einsum("br,brg->g", change, signs)

    return Plan(rows.reshape(-1, base.shape[1]), reduce)
