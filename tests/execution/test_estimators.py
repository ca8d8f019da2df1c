"""Descriptions that make sense open what they say; all others are refused with the fields that clash."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import EstimatorV2 as AerEstimator
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.executor_estimator import Estimator

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution import estimators
from qiskit_qdeq.execution.durable import DurableEstimator
from qiskit_qdeq.execution.estimators import Execution, build_estimator
from qiskit_qdeq.execution.noise import noise_from_backend, simple_noise
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator

VALUES = np.random.default_rng(0).uniform(-np.pi, np.pi, (3, 5))


def circuit():
    angles = ParameterVector("a", 5)
    result = QuantumCircuit(3)
    for qubit in range(3):
        result.ry(angles[qubit], qubit)
    result.crx(angles[3], 0, 1)
    result.cx(1, 2)
    result.rx(angles[4], 2)
    return result


def measure(opened, repeat=1):
    """Values of some observables in `repeat` calls, transpiled as the opened estimator asks."""
    template = circuit()
    if opened.pass_manager is not None:
        template = opened.pass_manager.run(template)
    labels = [SparsePauliOp(label) for label in ("IIZ", "IZI", "ZII", "XXI")]
    observables = [o if template.layout is None else o.apply_layout(template.layout) for o in labels]
    pub = (
        template,
        ObservablesArray(observables).reshape(4, 1),
        VALUES,
        *([opened.precision] if opened.precision else []),
    )
    results = [opened.estimator.run([pub]).result()[0].data for _ in range(repeat)]
    return results[0] if repeat == 1 else [result.evs for result in results]


def evaluate(execution, **objects):
    with build_estimator(execution, 3, **objects) as opened:
        return measure(opened)


@pytest.fixture(scope="module")
def reference():
    return evaluate(Execution()).evs


@pytest.fixture(scope="module")
def fake_reference():
    return evaluate(Execution("fake:torino", optimization_level=1)).evs


def test_default_is_exact_and_untranspiled(reference):
    with build_estimator(Execution(), 3) as opened:
        assert isinstance(opened.estimator, StatevectorEstimator)
        assert opened.backend is None
        assert opened.pass_manager is None
    assert evaluate(Execution("aer")).evs == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("backend", ["statevector", "aer"])
def test_shots_scatter_about_the_exact_values(backend, reference):
    data = evaluate(Execution(backend, shots=2000, seed=1))
    assert np.abs((data.evs - reference) / data.stds).max() < 5
    assert np.abs(data.evs - reference).max() > 1e-4


def test_noise_moves_the_values_and_readout_error_alone_does(reference):
    for noise in ("0.001,0.02,0", "0,0,0.05", "fake:manila"):
        values = evaluate(Execution("aer", noise=noise)).evs
        assert np.abs(values - reference).max() > 0.01
        assert np.abs(values - reference).max() < 0.5


def test_fake_device_has_the_noise_of_its_best_qubits(device, reference, fake_reference):
    assert np.abs(fake_reference - reference).max() > 5e-3
    with build_estimator(Execution("fake:torino"), 4) as opened:
        assert isinstance(opened.estimator, DensityMatrixEstimator)
        assert opened.backend.target["cz"][(0, 1)].error == device.target["cz"][(0, 1)].error


@pytest.mark.parametrize("mode", ["job", "batch", "session"])
def test_resilience_level_turns_the_runtime_estimator_on(mode, fake_reference):
    execution = Execution("fake:torino", resilience_level=0, shots=1000, seed=2, mode=mode, optimization_level=1)
    with build_estimator(execution, 3) as opened:
        primitive = opened.estimator.wrapped
        assert isinstance(primitive, Estimator)
        assert primitive.options.resilience_level == 0
        assert primitive.options.default_shots == 1000
        assert isinstance(primitive.mode, {"job": type(None), "batch": Batch, "session": Session}[mode])
        data = measure(opened)
    assert np.abs((data.evs - fake_reference) / data.stds).max() < 5


@pytest.mark.parametrize(
    "execution",
    [
        Execution(shots=500, seed=3),
        Execution("aer", precision=0.05, seed=3),
        Execution("aer", noise="0.001,0.01,0.02", shots=500, seed=3),
        Execution("fake:manila", shots=500, seed=3),
        Execution("fake:manila", resilience_level=0, shots=500, seed=3),
    ],
    ids=lambda execution: f"{execution.backend} {execution.resilience_level}",
)
def test_one_seed_gives_fresh_noise_in_every_call_and_the_same_again(execution):
    with build_estimator(execution, 3) as opened:
        first, second = measure(opened, repeat=2)
        opened.estimator.restart(0)
        again = measure(opened).evs
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(evaluate(execution).evs, first)


def test_options_pass_through_untouched():
    options = {
        "resilience": {"zne_mitigation": True, "zne": {"noise_factors": [1, 3], "extrapolator": "linear"}},
        "twirling": {"enable_gates": True, "num_randomizations": 8},
        "dynamical_decoupling": {"enable": False, "sequence_type": "XpXm"},
    }
    execution = Execution("fake:manila", resilience_level=1, shots=100, options=options)
    with build_estimator(execution, 3) as opened:
        found = opened.estimator.options
        assert found.resilience_level == 1
        assert found.resilience.zne.noise_factors == [1, 3]
        assert found.twirling.num_randomizations == 8
        assert found.dynamical_decoupling.sequence_type == "XpXm"


@pytest.mark.parametrize("name", ["environment", "execution", "max_execution_time", "dynamical_decoupling"])
def test_options_that_a_simulator_ignores_are_named_in_a_warning(name):
    values = {
        "environment": {"job_tags": ["a"]},
        "execution": {"init_qubits": True},
        "max_execution_time": 10,
        "dynamical_decoupling": {"enable": True},
    }
    execution = Execution("fake:manila", resilience_level=0, options={name: values[name]})
    with pytest.warns(UserWarning, match=f"option '{name}'") as caught:
        build_estimator(execution, 2).close()
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_refused_options_name_the_option_and_not_its_value():
    execution = Execution("fake:manila", resilience_level=0, options={"resilience": {"zne_mitigatoin": "sEcReT"}})
    with pytest.raises(InputError, match=r"resilience\.zne_mitigatoin") as caught:
        build_estimator(execution, 2)
    assert "sEcReT" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_session_closes_when_the_body_fails(error, monkeypatch):
    closed = []
    monkeypatch.setattr(Session, "close", lambda self: closed.append(self))
    execution = Execution("fake:manila", resilience_level=0, mode="session")
    opened = build_estimator(execution, 2)
    assert not closed
    with pytest.raises(error), opened:
        raise error
    assert closed == [opened.estimator.mode]


def test_session_closes_when_opening_fails_after_it(monkeypatch):
    closed = []
    monkeypatch.setattr(Session, "close", lambda self: closed.append(self))
    monkeypatch.setattr(estimators, "_client_side", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_estimator(Execution("fake:manila", resilience_level=0, mode="session"), 2)
    assert len(closed) == 1


def test_close_can_be_called_twice():
    opened = build_estimator(Execution("fake:manila", resilience_level=0, mode="batch"), 2)
    opened.close()
    opened.close()


def test_ibm_device_gets_the_runtime_estimator_with_an_explicit_level(monkeypatch):
    # a simulator stands in for the device, for which an account would be needed
    device = simple_noise(5, one_qubit=0.001)
    monkeypatch.setattr(estimators, "ibm_backend", lambda name: device if name == "ibm_test" else None)
    for level, expected in ((None, 1), (2, 2), (0, 0)):
        with build_estimator(Execution("ibm:ibm_test", resilience_level=level, mode="batch"), 3) as opened:
            assert isinstance(opened.estimator, DurableEstimator)
            assert isinstance(opened.estimator.wrapped, Estimator)
            assert opened.estimator.wrapped.options.resilience_level == expected
            assert "resilience_level" in opened.estimator.wrapped.options.model_fields_set
            assert opened.backend is device
    with pytest.raises(InputError, match="has 5 qubits, the circuit 6"):
        build_estimator(Execution("ibm:ibm_test"), 6)


def test_objects_are_taken_with_given(device, torino, reference, fake_reference):
    given = Execution("given", optimization_level=1)
    assert evaluate(given, backend=torino).evs == pytest.approx(fake_reference, abs=1e-12)
    assert evaluate(Execution("given"), estimator=StatevectorEstimator()).evs == pytest.approx(reference)
    simulator = noise_from_backend(device)
    with build_estimator(Execution("given", shots=100), 4, backend=simulator) as opened:
        assert isinstance(opened.estimator, BackendEstimatorV2)
        assert opened.estimator.options.default_precision == 0.1
    with build_estimator(Execution("given", resilience_level=1, mode="batch"), 4, backend=simulator) as opened:
        assert isinstance(opened.estimator, Estimator)
    with build_estimator(Execution("given", shots=100), 3, estimator=StatevectorEstimator()) as opened:
        assert opened.precision == 0.1


def test_aer_estimator_object_is_protected_from_its_controlled_gate_bug(reference):
    assert evaluate(Execution("given"), estimator=AerEstimator()).evs == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "qasm"}, "backend must be 'exact', 'statevector', 'aer'"),
        ({"backend": "fake:"}, "backend must be"),
        ({"backend": "fake"}, "backend must be"),
        ({"backend": "aer:gpu"}, "backend must be"),
        ({"backend": 3}, "backend must be"),
        ({"shots": 10, "precision": 0.1}, "shots and precision"),
        ({"shots": 0}, "shots must be an integer of at least 1"),
        ({"shots": True}, "shots must be an integer"),
        ({"precision": 0.0}, "precision must be a number above 0"),
        ({"precision": float("nan")}, "precision must be"),
        ({"precision": "0.1"}, "precision must be"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"noise": "0.1,0.1,0.1"}, "noise has no effect with backend='statevector'"),
        ({"backend": "fake:manila", "noise": "0.1,0.1,0.1"}, "noise has no effect"),
        ({"backend": "ibm:x", "noise": "fake:manila"}, "noise has no effect"),
        ({"backend": "aer", "noise": None}, "noise must be a text"),
        ({"optimization_level": 1}, "optimization_level has no effect with backend='statevector'"),
        ({"backend": "aer", "optimization_level": 4}, "optimization_level must be 0, 1, 2 or 3"),
        ({"resilience_level": 1}, "resilience_level has no effect with backend='statevector'"),
        ({"backend": "aer", "mode": "batch", "options": {"a": 1}}, "options, mode have no effect"),
        ({"backend": "ibm:x", "resilience_level": 3}, "resilience_level must be 0, 1 or 2"),
        ({"backend": "ibm:x", "resilience_level": True}, "resilience_level must be 0, 1 or 2"),
        ({"backend": "fake:manila", "mode": "session"}, "mode has no effect.*unless resilience_level"),
        ({"backend": "fake:manila", "options": {"twirling": {}}}, "options has no effect.*unless resilience_level"),
        ({"backend": "fake:manila", "resilience_level": 1, "mode": "batch", "max_time": 9}, "max_time has no effect"),
        ({"backend": "ibm:x", "max_time": 9}, "max_time has no effect with mode='job'"),
        ({"backend": "ibm:x", "mode": "dedicated"}, "mode must be one of"),
        (
            {"backend": "ibm:x", "options": {"default_shots": 10}},
            "must not contain 'default_shots'; use the field shots",
        ),
        ({"backend": "ibm:x", "options": {"resilience_level": 1}}, "use the field resilience_level"),
        ({"backend": "ibm:x", "options": {"simulator": {"seed_simulator": 1}}}, "use seed"),
        ({"backend": "ibm:x", "options": {"a": object()}}, "plain values"),
        ({"backend": "ibm:x", "options": [1]}, "mapping of plain values"),
    ],
)
def test_descriptions_without_effect_or_meaning_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Execution(**fields)


@pytest.mark.parametrize(
    ("execution", "objects", "message"),
    [
        (Execution(), {"estimator": StatevectorEstimator()}, "exclude each other"),
        (Execution("given"), {}, "exclude each other"),
        (Execution("exact", noise="fake:manila"), {}, "runs no circuits, so it has no estimator"),
        (Execution("given", mode="batch"), {"estimator": StatevectorEstimator()}, "mode has no effect"),
        (
            Execution("given", resilience_level=1),
            {"estimator": StatevectorEstimator()},
            "resilience_level has no effect",
        ),
        (Execution("given", optimization_level=1), {"estimator": StatevectorEstimator()}, "without a backend"),
        (Execution("given"), {"estimator": 3}, "estimator must have the run method"),
        (Execution("given"), {"backend": simple_noise(1)}, "has 1 qubits, the circuit 2"),
        (Execution("given"), {"backend": "aer"}, "backend must be a BackendV2"),
        (Execution("given", mode="session"), {"backend": simple_noise(2)}, "mode has no effect"),
        (Execution("given", resilience_level=1), {"backend": AerSimulator()}, "crx.*misreads"),
        (Execution("aer", noise="loud"), {}, "noise must be three rates"),
        (Execution("fake:nowhere"), {}, "no fake backend 'nowhere'"),
    ],
)
def test_objects_and_names_that_do_not_fit_are_refused(execution, objects, message):
    with pytest.raises(InputError, match=message):
        build_estimator(execution, 2, **objects)


def test_importing_does_not_load_simulators_or_the_runtime_client():
    code = (
        "import sys, qiskit_qdeq.execution.estimators\n"
        "sys.exit(bool({'qiskit_aer', 'qiskit_ibm_runtime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_descriptions_survive_json():
    execution = Execution("ibm:x", precision=0.01, mode="batch", resilience_level=2, options={"a": [1]}, max_time=60)
    document = json.dumps(dataclasses.asdict(execution))
    assert Execution(**json.loads(document)) == execution


def test_valid_descriptions_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_estimator(Execution("fake:manila", resilience_level=2, options={"twirling": {"enable_gates": False}}), 2)
