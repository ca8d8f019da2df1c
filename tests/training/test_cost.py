"""The predicted cost of a step is the cost it has."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes, zz_feature_map

from qiskit_qdeq import CircuitTemplate, Execution, QDEQModel, Sampling, TrainingConfig, executed, model_config, solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient import Backward
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.step import training_step

BATCH = 3


def amplitude():
    return model_config("default", 4, 2, 2).build()


def reuploading():
    template = CircuitTemplate(zz_feature_map(2, reps=2), real_amplitudes(2, reps=1, parameter_prefix="w"))
    return QDEQModel(template, 2, state_scale=0.2)


def step(model, config):
    rng = np.random.default_rng(0)
    inputs = model.prepare(rng.uniform(0.2, 1, (BATCH, model.num_features)))
    return training_step(
        model,
        model.initial_parameters(1),
        inputs,
        np.arange(BATCH) % 2,
        config,
        direct=config.mode == "direct",
        initial=None,
        rng=np.random.default_rng,
    )


SHIFT, RANDOM, SPSA = (
    Sampling(forward=64, jacobian=32, gradient=16),
    Sampling(forward=64, gradient_method="random", gradient_circuits=4),
    Sampling(forward=64, gradient_method="spsa", gradient_circuits=2),
)


@pytest.mark.parametrize("sampling", [SHIFT, RANDOM, SPSA], ids=["shift", "random", "spsa"])
@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(solver=solver("probe")),
        TrainingConfig(solver=solver("probe", corrections=0), start="direct", layers=2),
        TrainingConfig(solver=solver("probe", corrections=3), backward=Backward("jfb")),
        TrainingConfig(mode="direct"),
        TrainingConfig(mode="direct", layers=3),
    ],
    ids=["probe", "probe-0", "probe-3", "direct-1", "direct-3"],
)
def test_what_is_predicted_is_what_it_costs(config, sampling):
    with executed(amplitude(), Execution("aer", seed=0), sampling=sampling) as measured:
        assert predicted_step(measured, config, BATCH) == step(measured, config).cost


@pytest.mark.parametrize("model", [amplitude, reuploading])
@pytest.mark.parametrize("sampling", [SHIFT, SPSA], ids=["shift", "spsa"])
@pytest.mark.parametrize("name", ["broyden", "newton", "picard"])
def test_an_upper_bound_holds_for_solvers_that_iterate(model, sampling, name):
    config = TrainingConfig(solver=solver(name, max_steps=4, tol=0.0, confidence=1e-9))
    with executed(model(), Execution("aer", seed=0), sampling=sampling) as measured:
        spent, bound = step(measured, config).cost, predicted_step(measured, config, BATCH)
    # the readout is measured again only where an iterate before the last one was the best
    assert bound.circuits - BATCH <= spent.circuits <= bound.circuits
    assert spent.jobs == bound.jobs


def test_exact_models_cost_nothing_and_scipy_cannot_be_predicted():
    assert predicted_step(amplitude(), TrainingConfig(), 10) == Cost()
    with (
        executed(amplitude(), Execution("aer", shots=10)) as measured,
        pytest.raises(InputError, match="cannot be predicted"),
    ):
        predicted_step(measured, TrainingConfig(solver=solver("scipy:hybr")), 2)
    with pytest.raises(InputError, match="batch must be >= 1"):
        predicted_step(amplitude(), TrainingConfig(), 0)
