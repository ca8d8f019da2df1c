"""An equilibrium inside qiskit-machine-learning and torch: the same numbers and gradients as the package's own."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from sklearn.datasets import load_iris

from qiskit_qdeq import QDEQModel, Sampling, model_config, solve, solver
from qiskit_qdeq.exceptions import InputError, MissingExtraError
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.seeding import SeededEstimator
from qiskit_qdeq.gradient import Backward

NEWTON = solver("newton", tol=1e-13)


def extra(name, brings):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'qiskit-qdeq[{brings}]'")


@pytest.fixture(scope="module")
def connectors():
    extra("qiskit_machine_learning", "ml")
    from qiskit_qdeq import connectors

    return connectors


MODELS = {
    "amplitude": {"encoding": "amplitude", "readout": "zz", "bias": 1.0},
    "angle": {"encoding": "angle", "readout": "zz"},
    "shared readout": {"encoding": "angle", "readout": "z"},
    "single precision": {"encoding": "amplitude", "readout": "zzz", "dtype": "float32"},
}


def model_of(name):
    return model_config("default", 5, 3, 3, **MODELS[name]).build()


def sample(model, batch=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, model.num_features)), rng.uniform(-np.pi, np.pi, model.num_weights)


def feature_map_model():
    from qiskit_qdeq import CircuitTemplate

    template = CircuitTemplate(
        zz_feature_map(2),
        real_amplitudes(2, reps=1),
        readout=[SparsePauliOp("XY"), SparsePauliOp(["ZI", "XX"], [0.5, 2])],
    )
    return QDEQModel(template, 2, state_scale=0.3)


def slopes_by_differences(function, at, step=1e-6):
    rows = [(function(at + step * d) - function(at - step * d)) / (2 * step) for d in np.eye(at.shape[-1])]
    return np.stack(rows, axis=-1)


class TestDerivatives:
    @pytest.mark.parametrize("name", ["amplitude", "angle", "shared readout"])
    def test_both_gradients_equal_finite_differences_through_the_equilibrium(self, connectors, name):
        model = model_of(name)
        x, weights = sample(model)
        network = connectors.EquilibriumQNN(model, solver=NEWTON, input_gradients=True)
        by_inputs, by_weights = network.backward(x, weights)
        np.testing.assert_allclose(
            by_inputs, slopes_by_differences(lambda at: network.forward(at, weights), x), atol=3e-8
        )
        np.testing.assert_allclose(
            by_weights, slopes_by_differences(lambda at: network.forward(x, at), weights), atol=3e-8
        )

    def test_feature_maps_and_observables_off_the_diagonal(self, connectors):
        model = feature_map_model()
        x, weights = sample(model, 3)
        network = connectors.EquilibriumQNN(model, solver=NEWTON, input_gradients=True)
        by_inputs, by_weights = network.backward(x, weights)
        np.testing.assert_allclose(
            by_inputs, slopes_by_differences(lambda at: network.forward(at, weights), x), atol=3e-8
        )
        np.testing.assert_allclose(
            by_weights, slopes_by_differences(lambda at: network.forward(x, at), weights), atol=3e-8
        )

    @pytest.mark.parametrize("mode", ["exact", "neumann", "jfb"])
    def test_contracted_weight_gradient_equals_the_package_s_own(self, connectors, mode):
        from qiskit_qdeq.gradient import implicit_term

        model = model_of("amplitude")
        x, weights = sample(model, 20)
        backward = Backward(mode)
        by_weights = connectors.EquilibriumQNN(model, solver=NEWTON, backward=backward).backward(x, weights)[1]
        problem = model.map(weights, model.prepare(x))
        solution = solve(problem, NEWTON)
        cotangent = np.random.default_rng(1).normal(size=by_weights.shape[:2])
        own = problem.pull_back([implicit_term(problem.at(solution.state), cotangent, backward, solution)])
        np.testing.assert_allclose(np.einsum("bf,bfp->p", cotangent, by_weights), own, rtol=0, atol=1e-10)

    def test_single_precision_models_give_double_arrays_of_their_accuracy(self, connectors):
        exact = model_config("default", 5, 3, 3, **{**MODELS["single precision"], "dtype": "float64"}).build()
        x, weights = sample(exact)
        found, wanted = (
            connectors.EquilibriumQNN(model, input_gradients=True) for model in (model_of("single precision"), exact)
        )
        for one, other in zip(found.backward(x, weights), wanted.backward(x, weights), strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, other, atol=2e-5)

    @pytest.mark.parametrize("name", ["amplitude", "angle"])
    def test_a_sample_s_gradients_do_not_depend_on_its_batch_mates(self, connectors, name):
        model = model_of(name)
        x, weights = sample(model, 37)
        network = connectors.EquilibriumQNN(model, solver=NEWTON, input_gradients=True)
        for together, alone in zip(network.backward(x, weights), network.backward(x[5], weights), strict=True):
            np.testing.assert_allclose(together[5], alone[0], rtol=0, atol=1e-13)

    def test_large_batches_are_taken_in_blocks(self, connectors, monkeypatch):
        from qiskit_qdeq.connectors import equilibrium_qnn
        from qiskit_qdeq.evaluation import slopes

        model = model_of("amplitude")
        x, weights = sample(model, 11)
        network = connectors.EquilibriumQNN(model, solver=NEWTON, input_gradients=True)
        whole = (network.forward(x, weights), *network.backward(x, weights))
        monkeypatch.setattr(equilibrium_qnn, "block_size", lambda model: 4)
        monkeypatch.setattr(slopes, "_BYTES", 1)
        for one, other in zip(whole, (network.forward(x, weights), *network.backward(x, weights)), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)

    def test_where_no_equilibrium_was_found_a_sample_takes_the_gradient_of_one_more_layer(self, connectors):
        model = model_of("amplitude")
        x, weights = sample(model)
        stuck = solver("picard", max_steps=1, tol=1e-15)
        network = connectors.EquilibriumQNN(
            model, solver=stuck, on_failure="accept", backward=Backward(residual_limit=0)
        )
        same = connectors.EquilibriumQNN(model, solver=stuck, on_failure="accept", backward="jfb")
        np.testing.assert_allclose(network.backward(x, weights)[1], same.backward(x, weights)[1], atol=1e-14)

    def test_backward_differentiates_the_call_s_own_inputs_and_weights(self, connectors):
        model = model_of("angle")
        x, weights = sample(model)
        network = connectors.EquilibriumQNN(model, solver=NEWTON)
        wanted = network.backward(x, weights)[1]
        for other in ((x + 0.1, weights), (x, weights + 0.1), (x[:2], weights)):
            network.forward(*other)
            np.testing.assert_array_equal(network.backward(x, weights)[1], wanted)
        given = weights.copy()
        network.forward(x, given)
        given += 0.1
        np.testing.assert_array_equal(network.backward(x, weights)[1], wanted)


class TestContract:
    @pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3)])
    @pytest.mark.parametrize("sparse", [False, True])
    def test_shapes_are_those_of_a_neural_network(self, connectors, leading, sparse):
        if sparse:
            extra("sparse", "ml")
        model = model_of("amplitude")
        _, weights = sample(model)
        x = np.random.default_rng(0).normal(size=(*leading, 5))
        outer = leading or (1,)
        network = connectors.EquilibriumQNN(model, sparse=sparse, input_gradients=True)
        assert (network.num_inputs, network.num_weights, network.output_shape) == (5, model.num_weights, (6,))
        assert network.forward(x, weights).shape == (*outer, 6)
        by_inputs, by_weights = network.backward(x, weights)
        assert by_inputs.shape == (*outer, 6, 5)
        assert by_weights.shape == (*outer, 6, model.num_weights)

    def test_sparse_arrays_hold_the_dense_ones_numbers(self, connectors):
        sparse = extra("sparse", "ml")
        model = model_of("amplitude")
        x, weights = sample(model)
        found, wanted = (connectors.EquilibriumQNN(model, sparse=flag, input_gradients=True) for flag in (True, False))
        np.testing.assert_array_equal(found.forward(x, weights).todense(), wanted.forward(x, weights))
        for one, other in zip(found.backward(x, weights), wanted.backward(x, weights), strict=True):
            assert isinstance(one, sparse.SparseArray)
            np.testing.assert_array_equal(one.todense(), other)

    def test_input_gradients_are_left_out_unless_asked_for(self, connectors):
        model = model_of("angle")
        x, weights = sample(model)
        network = connectors.EquilibriumQNN(model)
        assert network.backward(x, weights)[0] is None
        network.input_gradients = True
        assert network.backward(x, weights)[0].shape == (4, 6, 5)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"model": "paper"}, "model must be a QDEQModel"),
            ({"on_failure": "ignore"}, "on_failure must be"),
            ({"weight_inputs": 2}, "needs a model without other weights"),
            ({"backward": "shine"}, "reuses the inverse of solver 'broyden'"),
        ],
    )
    def test_mistakes_are_named(self, connectors, arguments, message):
        with pytest.raises(InputError, match=message):
            connectors.EquilibriumQNN(**{"model": model_of("angle"), **arguments})

    def test_missing_inputs_and_weights_are_named(self, connectors):
        model = model_of("angle")
        x, weights = sample(model)
        network = connectors.EquilibriumQNN(model)
        with pytest.raises(InputError, match="input_data is missing"):
            network.forward(None, weights)
        with pytest.raises(InputError, match="weights are missing"):
            network.backward(x, None)
        with pytest.raises(InputError, match="sample 1"):
            network.forward([[0.0] * 5, [0, 0, np.nan, 0, 0]], weights)

    def test_without_the_extra_the_error_names_it(self, monkeypatch):
        real = builtins.__import__

        def refuse(name, *arguments, **options):
            if name.startswith("qiskit_machine_learning"):
                raise ImportError(name)
            return real(name, *arguments, **options)

        monkeypatch.delitem(sys.modules, "qiskit_qdeq.connectors.equilibrium_qnn", raising=False)
        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(MissingExtraError, match=r"qiskit-qdeq\[ml\]"):
            from qiskit_qdeq.connectors import EquilibriumQNN  # noqa: F401


class CountingEstimator(DensityMatrixEstimator):
    jobs = 0

    def run(self, pubs, **options):
        self.jobs += 1
        return super().run(pubs, **options)


class TestMeasured:
    @pytest.mark.parametrize(("name", "method"), [("amplitude", "shift"), ("amplitude", "fixed"), ("angle", "shift")])
    def test_measured_without_noise_all_derivatives_are_the_exact_ones(self, connectors, name, method):
        exact = model_of(name)
        x, weights = sample(exact, 3)
        measured = exact.measured(DensityMatrixEstimator(), sampling=Sampling(gradient_method=method))
        found, wanted = (
            connectors.EquilibriumQNN(model, input_gradients=True, solver=chosen)
            for model, chosen in ((measured, solver("broyden", tol=1e-11, max_steps=60)), (exact, NEWTON))
        )
        np.testing.assert_allclose(found.forward(x, weights), wanted.forward(x, weights), atol=1e-9)
        for one, other in zip(found.backward(x, weights), wanted.backward(x, weights), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8)

    def test_backward_takes_one_job_more_than_the_forward_pass_before_it(self, connectors):
        estimator = CountingEstimator()
        model = model_of("amplitude").measured(estimator)
        x, weights = sample(model, 3)
        network = connectors.EquilibriumQNN(model)
        network.forward(x, weights)
        forward = estimator.jobs
        network.backward(x, weights)
        assert (forward, estimator.jobs - forward) == (2, 1)
        # another pass measures anew: a result is never handed out twice
        network.backward(x, weights)
        assert estimator.jobs == 6

    def test_shots_scatter_around_the_exact_derivatives(self, connectors):
        from qiskit_aer.primitives import EstimatorV2

        exact = model_of("amplitude")
        x, weights = sample(exact, 2)
        wanted = connectors.EquilibriumQNN(exact, solver=NEWTON, input_gradients=True).backward(x, weights)
        estimator = SeededEstimator(EstimatorV2(), 1)
        model = exact.measured(estimator, sampling=Sampling(forward=40_000))
        found = connectors.EquilibriumQNN(model, input_gradients=True).backward(x, weights)
        for one, other in zip(found, wanted, strict=True):
            gap = np.abs(one - other)
            assert 0 < gap.max() < 0.1

    def test_estimates_of_sums_are_refused_where_every_output_is_wanted(self, connectors):
        sampling = Sampling(gradient_method="spsa", gradient_circuits=4)
        network = connectors.EquilibriumQNN(model_of("amplitude").measured(DensityMatrixEstimator(), sampling=sampling))
        x, weights = sample(network.model, 2)
        assert network.forward(x, weights).shape == (2, 6)
        with pytest.raises(InputError, match="gradient_method 'spsa'"):
            network.backward(x, weights)


def reuploading():
    x, w = ParameterVector("x", 2), ParameterVector("w", 6)
    circuit = QuantumCircuit(2)
    for layer in range(3):
        circuit.ry(x[0] * w[2 * layer], 0)
        circuit.rx(x[1] + w[2 * layer + 1], 1)
        circuit.cx(0, 1)
    return circuit, x, w


def separable():
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    circuit = features.compose(ansatz)
    circuit.global_phase = 0.3
    return circuit, features.parameters, ansatz.parameters


def opaque():
    features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    circuit = QuantumCircuit(2)
    circuit.append(features.compose(ansatz).to_gate(label="all"), [0, 1])
    return circuit, features.parameters, ansatz.parameters


CIRCUITS = {"separable": separable, "re-uploading": reuploading, "one composite gate": opaque}
OBSERVABLES = [SparsePauliOp("ZZ"), SparsePauliOp(["XI", "IY"], [1, 0.5])]


@pytest.mark.usefixtures("connectors")
class TestTakingOver:
    @staticmethod
    def network(name, **options):
        from qiskit_machine_learning.neural_networks import EstimatorQNN

        circuit, inputs, weights = CIRCUITS[name]()
        options = {"observables": OBSERVABLES, "input_gradients": True, "default_precision": 0.0, **options}
        return EstimatorQNN(
            circuit=circuit, input_params=list(inputs), weight_params=list(weights),
            estimator=StatevectorEstimator(), **options,
        )  # fmt: skip

    @pytest.mark.parametrize("name", CIRCUITS)
    def test_without_feedback_values_and_gradients_are_the_network_s_own(self, connectors, name):
        network = self.network(name)
        taken = connectors.EquilibriumQNN.from_estimator_qnn(network, state_scale=0)
        rng = np.random.default_rng(0)
        x, weights = rng.normal(size=(3, 2)), rng.normal(size=network.num_weights)
        np.testing.assert_allclose(taken.forward(x, weights), network.forward(x, weights), atol=1e-12)
        if name != "re-uploading":
            # its shifts take a product of input and weight for a plain angle
            for one, other in zip(taken.backward(x, weights), network.backward(x, weights), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-10)

    @pytest.mark.parametrize("name", CIRCUITS)
    def test_the_output_is_the_circuit_s_at_its_own_equilibrium(self, connectors, name):
        circuit, inputs, weights = CIRCUITS[name]()
        taken = connectors.EquilibriumQNN.from_estimator_qnn(self.network(name), solver=NEWTON, state_scale=0.05)
        rng = np.random.default_rng(1)
        x, values = rng.normal(size=2), rng.normal(size=len(weights))
        state = np.zeros(2)
        for _ in range(200):
            u = x + 0.05 * state
            bound = circuit.assign_parameters(
                {**dict(zip(inputs, u, strict=True)), **dict(zip(weights, values, strict=True))}
            )
            vector = Statevector(bound)
            # wire 0 is the most significant qubit
            state = np.array([vector.expectation_value(SparsePauliOp(label)).real for label in ("ZI", "IZ")])
        wanted = [vector.expectation_value(observable).real for observable in OBSERVABLES]
        np.testing.assert_allclose(taken.forward(x, values)[0], wanted, atol=1e-10)

    def test_alternating_inputs_and_weights_have_both_gradients(self, connectors):
        taken = connectors.EquilibriumQNN.from_estimator_qnn(self.network("re-uploading"), solver=NEWTON)
        rng = np.random.default_rng(2)
        x, weights = rng.normal(size=(3, 2)), rng.normal(size=6)
        by_inputs, by_weights = taken.backward(x, weights)
        np.testing.assert_allclose(
            by_inputs, slopes_by_differences(lambda at: taken.forward(at, weights), x), atol=3e-8
        )
        np.testing.assert_allclose(
            by_weights, slopes_by_differences(lambda at: taken.forward(x, at), weights), atol=3e-8
        )

    @pytest.mark.parametrize("name", ["separable", "re-uploading"])
    def test_through_an_estimator_it_agrees_with_exact_evaluation(self, connectors, name):
        network = self.network(name)
        options = {"solver": solver("broyden", tol=1e-11, max_steps=60)}
        measured = connectors.EquilibriumQNN.from_estimator_qnn(network, estimator=DensityMatrixEstimator(), **options)
        exact = connectors.EquilibriumQNN.from_estimator_qnn(network, **options)
        rng = np.random.default_rng(3)
        x, weights = rng.normal(size=(2, 2)), rng.normal(size=network.num_weights)
        for one, other in zip(measured.backward(x, weights), exact.backward(x, weights), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-8)

    def test_other_operators_serve_as_observables(self, connectors):
        network = self.network("separable", observables=[Operator(SparsePauliOp("ZZ"))])
        taken = connectors.EquilibriumQNN.from_estimator_qnn(network, state_scale=0)
        same = connectors.EquilibriumQNN.from_estimator_qnn(self.network("separable"), state_scale=0)
        x, weights = np.ones((1, 2)), np.ones(4)
        np.testing.assert_allclose(taken.forward(x, weights)[:, 0], same.forward(x, weights)[:, 0], atol=1e-12)

    def test_what_cannot_be_taken_over_is_named(self, connectors):
        from qiskit_machine_learning.neural_networks import EstimatorQNN

        ansatz = real_amplitudes(2, reps=1)
        for arguments, message in (
            ({"weight_params": ansatz.parameters}, "no inputs"),
            ({"input_params": ansatz.parameters}, "no weights"),
        ):
            network = EstimatorQNN(circuit=ansatz, estimator=StatevectorEstimator(), **arguments)
            with pytest.raises(InputError, match=message):
                connectors.EquilibriumQNN.from_estimator_qnn(network)
        with pytest.raises(InputError, match="must be an EstimatorQNN"):
            connectors.EquilibriumQNN.from_estimator_qnn(ansatz)
        with pytest.raises(InputError, match="for an estimator"):
            connectors.EquilibriumQNN.from_estimator_qnn(self.network("separable"), sampling=Sampling())


class TestTorch:
    @staticmethod
    def connector(network, weights=None):
        from qiskit_machine_learning.connectors import TorchConnector

        return TorchConnector(network, weights)

    def test_autograd_gives_the_package_s_gradients(self, connectors, monkeypatch):
        torch = extra("torch", "torch")
        # the connector rounds everything to torch.float; without that rounding the numbers are the same
        monkeypatch.setattr(torch, "float", torch.float64)
        model = model_of("amplitude")
        x, weights = sample(model)
        network = connectors.EquilibriumQNN(model, solver=NEWTON, input_gradients=True)
        module = self.connector(network, weights)
        data = torch.tensor(x, requires_grad=True)
        cotangent = np.random.default_rng(1).normal(size=(4, 6))
        (module(data) * torch.tensor(cotangent)).sum().backward()

        from qiskit_qdeq.gradient import implicit_term

        problem = model.map(weights, model.prepare(x))
        solution = solve(problem, NEWTON)
        own = problem.pull_back([implicit_term(problem.at(solution.state), cotangent, Backward(), solution)])
        np.testing.assert_allclose(module.weight.grad.numpy(), own, rtol=0, atol=1e-10)

        def value(at):
            return (network.forward(at, weights) * cotangent).sum(axis=1)

        np.testing.assert_allclose(data.grad.numpy(), slopes_by_differences(value, x), atol=1e-7)

    def test_a_net_with_torch_layers_before_and_behind_trains(self, connectors):
        torch = extra("torch", "torch")
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(40, 6, generator=generator)
        y = (x[:, 0] * x[:, 1] > 0).long()
        network = connectors.EquilibriumQNN(
            model_config("default", 4, 2, 2, encoding="angle").build(), input_gradients=True
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first, last = torch.nn.Linear(6, 4), torch.nn.Linear(network.output_shape[0], 2)
            net = torch.nn.Sequential(first, self.connector(network), last)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        before = first.weight.detach().clone()
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] > 0.5
        assert losses[-1] < 0.3 * losses[0]
        assert (first.weight - before).abs().max() > 0.1

    def test_sparse_networks_serve_dense_connectors(self, connectors):
        torch = extra("torch", "torch")
        extra("sparse", "ml")
        from qiskit_machine_learning.connectors import TorchConnector

        model = model_of("amplitude")
        x, weights = sample(model)
        grads = []
        for sparse in (True, False):
            network = connectors.EquilibriumQNN(model, sparse=sparse, input_gradients=True)
            module = TorchConnector(network, weights, sparse=False)
            module(torch.tensor(x, dtype=torch.float)).square().sum().backward()
            grads.append(module.weight.grad.numpy())
        np.testing.assert_array_equal(*grads)


@pytest.mark.usefixtures("connectors")
class TestEstimatorsOfQiskitMachineLearning:
    def test_a_neural_network_classifier_fits_iris(self, connectors):
        from qiskit_machine_learning.algorithms import NeuralNetworkClassifier
        from qiskit_machine_learning.optimizers import SLSQP

        x, y = load_iris(return_X_y=True)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        model = model_config("default", 4, 3, 3, readout="z", bias=1.0).build()
        network = connectors.EquilibriumQNN(model)
        point = model.split(model.initial_parameters(0))[0]
        classifier = NeuralNetworkClassifier(
            network, loss="squared_error", one_hot=True, optimizer=SLSQP(maxiter=60), initial_point=point
        )
        assert classifier.fit(x, y).score(x, y) > 0.9

    def test_a_neural_network_regressor_fits_a_sine(self, connectors):
        from qiskit_machine_learning.algorithms import NeuralNetworkRegressor
        from qiskit_machine_learning.optimizers import SLSQP

        x = np.linspace(-1, 1, 30)[:, None]
        y = 0.8 * np.sin(2 * x[:, 0])
        config = model_config("default", 1, 2, 2, encoding="angle", readout="z")
        template = config.build().template
        from qiskit_qdeq import CircuitTemplate

        one = CircuitTemplate(template.encoder, template.ansatz, readout=[SparsePauliOp("ZI")])
        network = connectors.EquilibriumQNN(QDEQModel(one, 2, state_scale=0.5))
        point = np.random.default_rng(0).uniform(-1, 1, network.num_weights)
        regressor = NeuralNetworkRegressor(
            network, loss="squared_error", optimizer=SLSQP(maxiter=60), initial_point=point
        )
        assert regressor.fit(x, y).score(x, y) > 0.9
