import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.training.schedules import Constant, Cosine, Exponential, StepDecay, schedule

STEPWISE = [StepDecay(), StepDecay(70, 0.99), StepDecay(1)]
SCHEDULES = [Constant(), Cosine(), Cosine(0.2, 3), *STEPWISE, Exponential()]


@pytest.mark.parametrize("rule", SCHEDULES)
def test_factors_lie_between_zero_and_one_and_never_rise_after_warmup(rule):
    factors = [rule(step, 50) for step in range(51)]
    assert all(type(factor) is float and 0 <= factor <= 1 for factor in factors)
    after = factors[getattr(rule, "warmup", 0) :]
    assert after[0] == 1
    assert all(later <= earlier for earlier, later in pairwise(after))


def test_constant_is_one():
    assert [Constant()(step, 3) for step in range(4)] == [1.0] * 4


def test_cosine_worked_by_hand():
    rule = Cosine(final=0.1, warmup=4)
    # rise in fifths, then 1, 0.1 + 0.9 (1 ± 1/√2) / 2, half way 0.55, end 0.1
    assert [rule(step, 12) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=1e-15)
    quarter = 0.1 + 0.45 * (1 + math.sqrt(0.5))
    assert [rule(step, 12) for step in (6, 8, 12)] == pytest.approx([quarter, 0.55, 0.1], abs=1e-15)


@given(st.integers(1, 500), st.floats(0, 1), st.data())
@settings(deadline=None, derandomize=True)
def test_cosine_falls_symmetrically_about_its_middle(total, final, data):
    warmup = data.draw(st.integers(0, total - 1))
    step = data.draw(st.integers(warmup, total))
    rule = Cosine(final, warmup)
    mirrored = rule(warmup + total - step, total)
    assert rule(step, total) + mirrored == pytest.approx(1 + final, abs=1e-12)


def test_step_decay_worked_by_hand():
    rule = StepDecay(stages=3, factor=0.5)
    assert [rule(step, 9) for step in range(10)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    assert [rule(step, 4) for step in range(5)] == [1, 1, 0.5, 0.25, 0.25]


@given(st.integers(2, 1000), st.floats(1e-6, 1))
@settings(deadline=None, derandomize=True)
def test_exponential_keeps_its_ratio_and_ends_at_final(total, final):
    rule = Exponential(final)
    assert rule(total, total) == pytest.approx(final, rel=1e-12)
    ratios = [rule(step + 1, total) / rule(step, total) for step in (0, total // 2, total - 1)]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-9)


def test_factory_makes_each_schedule_with_its_options():
    assert schedule("constant") == Constant()
    assert schedule("cosine", warmup=5) == Cosine(0.0, 5)
    assert schedule("step", stages=10) == StepDecay(10, 0.1)
    assert schedule("exponential", final=0.5) == Exponential(0.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, "'cosin' is unknown; choose one of 'constant', 'cosine', 'step', 'exponential'"),
        (["cosine"], {}, "is unknown"),
        ("cosine", {"warm_up": 3}, "no option 'warm_up'; its options: final, warmup"),
        ("constant", {"final": 1.0}, "no option 'final'; its options: none"),
        ("step", {"every": 10}, "no option 'every'; its options: stages, factor"),
        ("cosine", {"final": 1.5}, r"Cosine: final must be in \[0, 1\], got 1\.5"),
        ("cosine", {"final": math.nan}, "final must be in"),
        ("cosine", {"final": False}, "final must be a number"),
        ("cosine", {"warmup": 2.0}, "warmup must be an integer of at least 0, got 2.0"),
        ("cosine", {"warmup": -1}, "warmup must be an integer of at least 0"),
        ("step", {"stages": 0}, "stages must be an integer of at least 1"),
        ("step", {"factor": 0.0}, r"factor must be in \(0, 1\]"),
        ("step", {"factor": 1.1}, r"factor must be in \(0, 1\]"),
        ("exponential", {"final": 0}, r"final must be in \(0, 1\]"),
    ],
)
def test_unknown_names_options_and_values_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        schedule(name, **options)


@pytest.mark.parametrize(
    ("step", "total", "message"),
    [
        (-1, 10, "step must be an integer of at least 0"),
        (11, 10, "step must not exceed total_steps, got 11 of 10"),
        (0.5, 10, "step must be an integer"),
        (0, 0, "total_steps must be an integer of at least 1"),
        (0, 9.0, "total_steps must be an integer"),
    ],
)
@pytest.mark.parametrize("rule", SCHEDULES)
def test_steps_outside_the_run_are_refused(rule, step, total, message):
    with pytest.raises(InputError, match=message):
        rule(step, total)


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(InputError, match="warmup must be less than total_steps, got 10 and 10"):
        Cosine(warmup=10)(0, 10)


def test_schedules_are_immutable_and_hold_plain_python_numbers():
    rule = Cosine(np.float64(0.5), np.int64(2))
    assert dataclasses.asdict(rule) == {"final": 0.5, "warmup": 2}
    assert [type(value) for value in dataclasses.asdict(rule).values()] == [float, int]
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.final = 0.1
