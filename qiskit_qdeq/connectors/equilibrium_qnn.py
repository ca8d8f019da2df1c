"""An equilibrium as a `NeuralNetwork` of qiskit-machine-learning.

forward(x, θ) = h(x + P q*; θ),   q* = m(x + P q*; θ),      backward: dh/dx and dh/dθ by the implicit function theorem
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits import AmplitudeEncoder
from qiskit_qdeq.circuits.splitting import split_circuit
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.evaluation.protocol import EvaluationPoint
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import InputError, MissingExtraError
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.gradient.outputs import output_slopes
from qiskit_qdeq.inference import block_size
from qiskit_qdeq.learner_options import automatic_solver
from qiskit_qdeq.model import QDEQModel, nearest_injection

try:
    from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork
except ImportError as error:
    raise MissingExtraError(
        "EquilibriumQNN is a network of qiskit-machine-learning, which is not installed: pip install 'qiskit-qdeq[ml]'"
    ) from error

Array = np.ndarray[Any, np.dtype[Any]]
Found = list[tuple[EvaluationPoint, Solution]]


class EquilibriumQNN(NeuralNetwork):  # type: ignore[misc]
    """Readout expectation values at the equilibrium, (samples, F), for `TorchConnector` and `NeuralNetworkClassifier`.

    The linear head of the model is left out: inputs are the data features, weights the circuit's θ. A backward pass that
    follows the forward pass at the same inputs and weights differentiates the equilibrium found there, and does not solve,
    or measure, again.

    Args:
        model: the model, exact or `measured`.
        solver: name or object, see `equilibrium.solver`; "auto" is "newton" for exact models, else "probe" for amplitude
            encoding and "broyden" for others.
        backward: how the adjoint equation is solved, see `gradient.Backward`.
        sparse: give `sparse.COO` arrays.
        input_gradients: whether `backward` gives dh/dx too; a layer in front of this one in a hybrid net needs them.
        on_failure: "raise", "warn" or "accept" samples without an equilibrium.
        weight_inputs: the last this many inputs of the model are weights, not data: circuits that alternate both, see
            `from_estimator_qnn`.

    Raises:
        InputError: for arguments that cannot be used.
        MissingExtraError: with `sparse=True`, if the package `sparse` is not installed.

    >>> import numpy as np
    >>> from qiskit_qdeq import model_config
    >>> from qiskit_qdeq.connectors import EquilibriumQNN
    >>> network = EquilibriumQNN(model_config("default", 4, 2, 2, readout="z").build(), input_gradients=True)
    >>> x, weights = np.full((5, 4), 0.3), np.linspace(0, 1, network.num_weights)
    >>> [part.shape for part in (network.forward(x, weights), *network.backward(x, weights))]
    [(5, 2), (5, 2, 4), (5, 2, 14)]
    """

    def __init__(
        self,
        model: QDEQModel,
        *,
        solver: str | Solver = "auto",
        backward: str | Backward = "exact",
        sparse: bool = False,
        input_gradients: bool = False,
        on_failure: str = "warn",
        weight_inputs: int = 0,
    ) -> None:
        if not isinstance(model, QDEQModel):
            raise InputError(
                f"model must be a QDEQModel, got {type(model).__name__}; from_estimator_qnn takes a network"
            )
        if on_failure not in ("raise", "warn", "accept"):
            raise InputError(f"on_failure must be 'raise', 'warn' or 'accept', got {on_failure!r}")
        if weight_inputs and (model.num_weights or model.bias or not 0 < weight_inputs < model.num_features):
            raise InputError(
                f"weight_inputs {weight_inputs!r} needs a model without other weights and bias, and with more inputs than "
                f"that; it has {model.num_features} inputs, {model.num_weights} weights, bias {model.bias:g}"
            )
        if sparse:
            _coo_type()
        super().__init__(
            num_inputs=model.num_features - weight_inputs,
            num_weights=weight_inputs or model.num_weights,
            sparse=sparse,
            output_shape=model.template.num_readouts,
            input_gradients=input_gradients,
        )
        self.model, self.on_failure = model, on_failure
        self.solver = _solver_for(model, solver)
        self.backward_mode = backward if isinstance(backward, Backward) else Backward(backward)
        if self.backward_mode.mode == "shine" and self.solver.name != "broyden":
            raise InputError(f"backward mode 'shine' reuses the inverse of solver 'broyden', got {self.solver.name!r}")
        self._weight_inputs = weight_inputs
        self._last: tuple[Array, Array, Found] | None = None

    @classmethod
    def from_estimator_qnn(
        cls,
        network: EstimatorQNN,
        *,
        state_observables: Sequence[SparsePauliOp] | None = None,
        state_scale: float = 0.5,
        injection: Array | None = None,
        estimator: Any = None,
        sampling: Sampling | None = None,
        runner_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """An `EstimatorQNN` closed onto itself: its circuit, inputs, weights and observables, which become the readout.

        A circuit that alternates inputs and weights (data re-uploading with trainable angles) is taken as it is; its exact
        simulation then shares nothing between samples and is slower. With `state_scale=0` outputs are the network's own.

        Args:
            network: with at least one input and one weight.
            state_observables: the K observables fed back; default: Z on every qubit.
            state_scale: factor of the state fed back.
            injection: P (inputs, K) instead of nearest-neighbour upsampling.
            estimator: measures the circuits, for instance `network.estimator`; None evaluates exactly.
            sampling: shots or precision, for an estimator; None takes the network's `default_precision`.
            runner_options: for `QDEQModel.measured`, such as `backend`.
            options: for `EquilibriumQNN`; `input_gradients` is the network's own unless given.

        Raises:
            InputError: if the circuit cannot be taken over; the message says why.
        """
        if not isinstance(network, EstimatorQNN):
            raise InputError(f"network must be an EstimatorQNN, got {type(network).__name__}")
        if estimator is None and (sampling is not None or runner_options):
            raise InputError("sampling and runner_options are for an estimator: give one, such as network.estimator")
        parts = split_circuit(network.circuit, network.input_params or (), network.weight_params or ())
        template = parts.template(state_observables, [_pauli_sum(each) for each in network.observables])
        if injection is None:
            injection = nearest_injection(network.num_inputs, template.num_states)
        # inputs that are weights take nothing of the state
        injection = np.vstack([injection, np.zeros((parts.weight_inputs, template.num_states))])
        # the head is not used
        model = QDEQModel(template, num_classes=2, state_scale=state_scale, injection=injection)
        if estimator is not None:
            sampling = sampling or Sampling(forward=network.default_precision or None)
            model = model.measured(estimator, sampling=sampling, **(runner_options or {}))
        options = {"input_gradients": network.input_gradients, **options}
        return cls(model, weight_inputs=parts.weight_inputs, **options)

    def _forward(self, input_data: Array | None, weights: Array | None) -> Any:
        x, weights = self._checked(input_data, weights)
        with compute_context():
            found = self._solve(x, weights)
            parts = [point.features for point, _ in found]
        self._last = (x.copy(), weights.copy(), found)
        features = np.concatenate(parts) if parts else np.zeros((0, *self.output_shape))
        return self._given(features)

    def _backward(self, input_data: Array | None, weights: Array | None) -> tuple[Any, Any]:
        x, weights = self._checked(input_data, weights)
        last, self._last = self._last, None
        with compute_context():
            if last is not None and np.array_equal(last[0], x) and np.array_equal(last[1], weights):
                found = last[2]
            else:
                found = self._solve(x, weights)
            by_inputs, by_weights = self._slopes(found, len(x))
        return (self._given(by_inputs) if self.input_gradients else None), self._given(by_weights)

    def _checked(self, input_data: Array | None, weights: Array | None) -> tuple[Array, Array]:
        if input_data is None:
            raise InputError("input_data is missing: an equilibrium is fed back into the inputs")
        if weights is None:
            raise InputError(f"weights are missing: the network has {self.num_weights}")
        return input_data, weights

    def _solve(self, x: Array, weights: Array) -> Found:
        """The equilibria, in blocks of bounded memory."""
        model, size = self.model, block_size(self.model)
        if self._weight_inputs:
            x, weights = np.hstack([x, np.broadcast_to(weights, (len(x), len(weights)))]), weights[:0]
        inputs = model.prepare(x)
        found = []
        for first in range(0, len(inputs), size):
            problem = model.map(weights, inputs[first : first + size])
            keep = self.backward_mode.mode == "shine"
            solution = solve(problem, self.solver, on_failure=self.on_failure, keep_inverse=keep, keep_trace=False)
            found.append((problem.at(solution.state), solution))
        return found

    def _slopes(self, found: Found, batch: int) -> tuple[Array, Array]:
        """dh/dx (B, F, inputs), whatever is in it if not wanted, and dh/dθ (B, F, weights)."""
        features, trailing = self.num_inputs, bool(self._weight_inputs)
        by_inputs = np.zeros((batch, *self.output_shape, features))
        by_weights = np.zeros((batch, *self.output_shape, self.num_weights))
        first = 0
        for point, solution in found:
            wanted = self.input_gradients or trailing
            slopes = output_slopes(point, solution, self.backward_mode, inputs=wanted, weights=not trailing)
            rows = slice(first, first + len(point.state))
            first = rows.stop
            if slopes.inputs is not None:
                by_inputs[rows] = slopes.inputs[:, :, :features]
            if slopes.weights is not None:
                by_weights[rows] = slopes.weights
            elif slopes.inputs is not None:
                by_weights[rows] = slopes.inputs[:, :, features:]
        return by_inputs, by_weights

    def _given(self, array: Array) -> Any:
        """In double precision; sparse if asked for."""
        dense = np.asarray(array, dtype=float)
        return _coo_type().from_numpy(dense) if self.sparse else dense


def _solver_for(model: QDEQModel, wanted: str | Solver) -> Solver:
    if wanted != "auto":
        return solver(wanted)  # type: ignore[no-any-return]
    amplitude = isinstance(model.template.encoder, AmplitudeEncoder)
    return automatic_solver(exact=model.evaluator.is_exact, amplitude=amplitude, feedback=bool(model.injection.any()))


def _pauli_sum(observable: Any) -> SparsePauliOp:
    if isinstance(observable, SparsePauliOp):
        return observable
    return SparsePauliOp.from_operator(observable)


def _coo_type() -> Any:
    try:
        from sparse import COO
    except ImportError as error:
        raise MissingExtraError(
            "sparse=True gives arrays of the package sparse, which is not installed: pip install 'qiskit-qdeq[ml]'"
        ) from error
    return COO
