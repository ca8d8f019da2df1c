import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint
from qiskit_qdeq.training.optimizers import SGD, Adam, clip_by_global_norm, optimizer

OPTIMIZERS = [Adam(), Adam(beta1=0.0, weight_decay=0.1), SGD(), SGD(momentum=0.9, nesterov=True)]

ENTRIES = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=4)
RUNS = st.lists(st.tuples(st.floats(0, 1), ENTRIES), min_size=1, max_size=12)
FRACTIONS = st.floats(0, 0.999)


def adam_by_hand(start, run, beta1, beta2, eps, decay):
    """Kingma & Ba 2015, Algorithm 1, for one parameter, line by line; decay of Loshchilov & Hutter 2019."""
    theta, m, v = start, 0.0, 0.0
    for t, (alpha, g) in enumerate(run, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - alpha * decay * theta - alpha * m_hat / (math.sqrt(v_hat) + eps)
    return theta


def sgd_by_hand(start, run, momentum, nesterov, decay):
    """One parameter; Nesterov's form in the usual change of variables to the point looked ahead to."""
    theta, velocity = start, 0.0
    for alpha, g in run:
        velocity = momentum * velocity + g
        direction = g + momentum * velocity if nesterov else velocity
        theta = theta - alpha * decay * theta - alpha * direction
    return theta


def take(opt, run, start, mask=None, dtype=np.float64):
    params = np.array(start, dtype=dtype)
    state = opt.init(params.size, dtype, mask)
    for rate, grad in run:
        opt.step(state, params, np.array(grad, dtype=dtype), rate)
    return params, state


def columns(run, index, size):
    return [(rate, grad[index % len(grad)]) for rate, grad in run]


def same_length(run, size):
    return [(rate, [grad[index % len(grad)] for index in range(size)]) for rate, grad in run]


@given(RUNS, ENTRIES, FRACTIONS, FRACTIONS, st.floats(1e-10, 1), st.floats(0, 1))
@settings(deadline=None, derandomize=True)
def test_adam_is_the_published_recursion_for_every_entry(run, start, beta1, beta2, eps, decay):
    params, state = take(Adam(beta1, beta2, eps, decay), same_length(run, len(start)), start)
    wanted = [
        adam_by_hand(value, columns(run, index, len(start)), beta1, beta2, eps, decay)
        for index, value in enumerate(start)
    ]
    np.testing.assert_allclose(params, wanted, rtol=1e-9, atol=1e-9)
    assert state.steps == len(run)


@given(RUNS, ENTRIES, st.floats(0.01, 0.999), st.booleans(), st.floats(0, 1))
@settings(deadline=None, derandomize=True)
def test_sgd_is_its_recursion_for_every_entry(run, start, momentum, nesterov, decay):
    params, _ = take(SGD(momentum, nesterov, decay), same_length(run, len(start)), start)
    wanted = [
        sgd_by_hand(value, columns(run, index, len(start)), momentum, nesterov, decay)
        for index, value in enumerate(start)
    ]
    np.testing.assert_allclose(params, wanted, rtol=1e-9, atol=1e-9)


def test_first_adam_step_moves_each_entry_by_the_rate_against_its_sign():
    params, _ = take(Adam(), [(0.01, [1e-3, -200.0, 0.0])], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(params, [0.99, 1.01, 1.0], rtol=1e-6)


def test_nesterov_momentum_worked_by_hand():
    # v = 1, 1.5; d = 1.5, 1.75; θ = 0 - 0.1 * 1.5 - 0.1 * 1.75
    params, _ = take(SGD(momentum=0.5, nesterov=True), [(0.1, [1.0]), (0.1, [1.0])], [0.0])
    assert params[0] == pytest.approx(-0.325, abs=1e-15)


@pytest.mark.parametrize("opt", [Adam(weight_decay=0.5), SGD(weight_decay=0.5)])
def test_decay_acts_on_the_mask_only(opt):
    run = [(0.1, [0.0, 0.0])] * 3
    params, _ = take(opt, run, [2.0, 2.0], mask=np.array([True, False]))
    np.testing.assert_allclose(params, [2.0 * 0.95**3, 2.0], rtol=1e-15)


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_float32_stays_float32_and_agrees_with_float64(opt):
    run = [(0.01, [0.3, -2.0]), (0.02, [0.1, 5.0])] * 5
    single, state = take(opt, run, [1.0, -1.0], dtype=np.float32)
    double, _ = take(opt, run, [1.0, -1.0])
    assert single.dtype == np.float32
    assert all(moment.dtype == np.float32 for moment in state.moments.values())
    np.testing.assert_allclose(single, double, rtol=2e-6)


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_gradient_is_not_changed_and_rate_zero_moves_nothing(opt):
    grad = np.array([1.0, -2.0])
    params, state = np.array([3.0, 4.0]), opt.init(2)
    opt.step(state, params, grad, 0.0)
    assert grad.tolist() == [1.0, -2.0]
    assert params.tolist() == [3.0, 4.0]
    assert state.steps == 1


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_no_parameters_is_a_valid_size(opt):
    params, state = take(opt, [(0.1, [])], [])
    assert params.shape == (0,)
    assert opt.from_arrays(state.arrays()).steps == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_going_on_from_a_checkpoint_gives_the_same_bits(tmp_path, opt, dtype, masked):
    rng = np.random.default_rng(3)
    run = [(0.05, grad) for grad in rng.normal(size=(10, 6))]
    mask = np.arange(6) % 2 == 0 if masked else None
    whole, _ = take(opt, run, np.ones(6), mask, dtype)

    params, state = take(opt, run[:4], np.ones(6), mask, dtype)
    save_checkpoint(tmp_path / "run.safetensors", {"params": params, **state.arrays()}, {})
    arrays = load_checkpoint(tmp_path / "run.safetensors").arrays
    params = arrays.pop("params")
    state = opt.from_arrays(arrays)
    for rate, grad in run[4:]:
        opt.step(state, params, grad.astype(dtype), rate)
    assert params.tobytes() == whole.tobytes()


def test_saved_arrays_do_not_change_with_later_steps():
    opt, params = Adam(), np.zeros(2)
    state = opt.init(2)
    opt.step(state, params, np.ones(2), 0.1)
    saved = {name: array.copy() for name, array in state.arrays().items()}
    kept = state.arrays()
    restored = opt.from_arrays(kept)
    opt.step(restored, params, np.ones(2), 0.1)
    opt.step(state, params, np.ones(2), 0.1)
    for name, array in saved.items():
        np.testing.assert_array_equal(kept[name], array)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(20, 5))
    pairs = [
        (Adam(weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        (SGD(momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
        (SGD(0.9, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True)),
        (SGD(weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.1)),
    ]
    for ours, make in pairs:
        theirs = torch.ones(5, dtype=torch.float64, requires_grad=True)
        other = make([theirs])
        for grad in grads:
            theirs.grad = torch.tensor(grad)
            other.step()
        params, _ = take(ours, [(0.01, grad) for grad in grads], np.ones(5))
        np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=1e-12)


READ_ONLY = np.zeros(2)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad": np.zeros(3)}, r"grad must be .* shape \(2,\) of float64, got \(3,\)"),
        ({"grad": np.zeros((2, 1))}, "grad must be"),
        ({"grad": np.zeros(2, np.float32)}, "grad must be .* got .* float32"),
        ({"grad": [0.0, 0.0]}, "grad must be .* got list"),
        ({"params": np.zeros(3)}, "params must be"),
        ({"params": np.zeros(2, np.float32)}, "params must be"),
        ({"params": READ_ONLY}, "params is read-only"),
        ({"learning_rate": -0.1}, "learning_rate must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"learning_rate": math.inf}, "learning_rate must be"),
        ({"learning_rate": "0.1"}, "learning_rate must be"),
        ({"grad": np.array([0.0, math.nan])}, "grad holds NaN"),
        ({"grad": np.array([-math.inf, 0.0])}, "grad holds NaN"),
        ({"grad": np.array([1e200, 0.0])}, r"above 1e\+150"),
    ],
)
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_a_refused_step_changes_nothing(opt, changes, message):
    state = opt.init(2)
    good = {"params": np.ones(2), "grad": np.ones(2), "learning_rate": 0.1}
    opt.step(state, **good)
    before = {name: array.copy() for name, array in state.arrays().items()}
    arguments = {**good, **changes}
    params = np.array(arguments["params"])
    with pytest.raises(InputError, match=message):
        opt.step(state, **arguments)
    np.testing.assert_array_equal(arguments["params"], params)
    for name, array in state.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_state_of_another_optimizer_is_refused():
    with pytest.raises(InputError, match="belongs to another optimizer"):
        SGD().step(Adam().init(2), np.zeros(2), np.zeros(2), 0.1)
    with pytest.raises(InputError, match="no state of SGD: that has steps, velocity"):
        SGD().from_arrays(Adam().init(2).arrays())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": np.array(-1)}, "steps must be an integer of at least 0"),
        ({"steps": np.array(1.0)}, "steps must be .* int64"),
        ({"first_moment": np.array([0.0, math.nan])}, "first_moment holds NaN"),
        ({"second_moment": np.array([0.0, -1.0])}, "second_moment holds"),
        ({"second_moment": np.zeros(3)}, "second_moment must be"),
        ({"first_moment": np.zeros((2, 1))}, r"first_moment must be .* \(2,\)"),
        ({"first_moment": np.zeros(2, int)}, "dtype must be float32 or float64, got .*int64"),
        ({"first_moment": [0.0, 0.0]}, "first_moment must be"),
        ({"decay_mask": np.zeros(2)}, "decay_mask must be"),
        ({"velocity": np.zeros(2)}, "no state of Adam"),
    ],
)
def test_arrays_no_step_can_produce_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Adam().from_arrays({**Adam().init(2).arrays(), **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "size must be an integer of at least 0"),
        ((2.0,), "size must be an integer"),
        ((2, np.float16), "dtype must be float32 or float64, got .*float16"),
        ((2, "double trouble"), "dtype must be float32 or float64, got 'double trouble'"),
        ((2, float, np.ones(2)), "decay_mask must be .* bool"),
        ((2, float, np.ones(3, bool)), "decay_mask must be"),
        ((2, float, [True, True]), "decay_mask must be .* got list"),
    ],
)
def test_init_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(InputError, match=message):
        Adam().init(*arguments)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {}, "optimizer 'adamw' is unknown; choose one of 'adam', 'sgd'"),
        (None, {}, "optimizer None is unknown"),
        ("adam", {"beta": 0.9}, "no option 'beta'; its options: beta1, beta2, eps, weight_decay"),
        ("sgd", {"moment_names": ()}, "no option 'moment_names'; its options: momentum, nesterov, weight"),
        ("adam", {"beta1": 1.0}, r"Adam: beta1 must be in \[0, 1\), got 1\.0"),
        ("adam", {"beta2": math.nan}, r"beta2 must be in \[0, 1\), got nan"),
        ("adam", {"beta2": True}, "beta2 must be a number"),
        ("adam", {"beta2": "0.9"}, "beta2 must be a number .* got '0.9'"),
        ("adam", {"eps": 0.0}, r"eps must be in \[1e-30, 1\]"),
        ("adam", {"weight_decay": -0.1}, r"weight_decay must be in \[0, inf\)"),
        ("adam", {"weight_decay": math.inf}, r"weight_decay must be in \[0, inf\)"),
        ("adam", {"weight_decay": 10**400}, "weight_decay must be in"),
        ("sgd", {"momentum": 1}, "momentum must be in"),
        ("sgd", {"nesterov": 1, "momentum": 0.9}, "nesterov must be True or False"),
        ("sgd", {"nesterov": True}, "nesterov=True needs momentum > 0"),
    ],
)
def test_unknown_names_options_and_values_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        optimizer(name, **options)


def test_hyper_parameters_are_immutable_and_plain_python_numbers():
    adam = optimizer("adam", beta1=np.float32(0.5), weight_decay=1)
    assert adam == Adam(beta1=0.5, weight_decay=1.0)
    assert {type(value) for value in dataclasses.asdict(adam).values()} == {float}
    with pytest.raises(dataclasses.FrozenInstanceError):
        adam.beta1 = 0.1


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), max_size=6),
    st.floats(1e-6, 1e6),
)
@settings(deadline=None, derandomize=True)
def test_clipping_keeps_the_direction_and_bounds_the_norm(entries, max_norm):
    grad = np.array(entries)
    norm = clip_by_global_norm(grad, max_norm)
    assert norm == pytest.approx(math.hypot(*entries), rel=1e-12)
    if norm <= max_norm:
        assert grad.tolist() == entries
    else:
        assert math.hypot(*grad) == pytest.approx(max_norm, rel=1e-12)
        subnormal = 1e-307 * norm / max_norm
        np.testing.assert_allclose(grad * (norm / max_norm), entries, rtol=1e-12, atol=subnormal)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clipping_reports_a_gradient_that_is_not_finite_and_leaves_it(bad):
    grad = np.array([1.0, bad])
    assert not math.isfinite(clip_by_global_norm(grad, 0.5))
    np.testing.assert_array_equal(grad, [1.0, bad])


def test_clipping_takes_float32_beyond_the_range_of_its_squares():
    grad = np.array([3e30, 4e30], dtype=np.float32)
    assert clip_by_global_norm(grad, 1.0) == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(grad, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("grad", "max_norm", "message"),
    [
        (np.ones(2), 0.0, r"max_norm must be in \(0, inf\)"),
        (np.ones(2), math.inf, "max_norm must be in"),
        (np.ones(2), None, "max_norm must be a number"),
        ([1.0], 1.0, "grad must be a writable"),
        (np.ones(2, int), 1.0, "grad must be a writable"),
        (READ_ONLY, 1.0, "grad must be a writable"),
    ],
)
def test_clipping_refuses_what_it_cannot_scale(grad, max_norm, message):
    with pytest.raises(InputError, match=message):
        clip_by_global_norm(grad, max_norm)
