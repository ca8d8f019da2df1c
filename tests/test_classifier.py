"""QDEQClassifier is a scikit-learn classifier like any other, and says what is wrong where something is."""

from __future__ import annotations

import io
import pickle

import joblib
import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from qiskit_qdeq import AmplitudeEncoder, CircuitTemplate, QDEQClassifier, solver
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError
from qiskit_qdeq.gradient import Backward
from qiskit_qdeq.model import QDEQModel

CHECKED = [
    QDEQClassifier(epochs=30, random_state=0),
    QDEQClassifier(epochs=30, mode="direct", random_state=0),
    QDEQClassifier(epochs=20, encoding="angle", random_state=0),
    QDEQClassifier(epochs=20, encoding="angle", mode="direct", layers=2, random_state=0),
    QDEQClassifier(epochs=30, solver="broyden", backward="shine", start="warm", random_state=0),
]


@pytest.fixture(scope="module")
def iris():
    """Shuffled, standardized iris: 100 training and 50 test samples."""
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x = StandardScaler().fit_transform(x)[order]
    return x[:100], y[order][:100], x[100:], y[order][100:]


@pytest.fixture(scope="module")
def fitted(iris):
    return quick().fit(*iris[:2])


@pytest.fixture(scope="module")
def template():
    return CircuitTemplate(AmplitudeEncoder(4), real_amplitudes(2, reps=2, parameter_prefix="w"), readout="zz")


def log_template():
    """An encoder that is defined for inputs > 0 only."""
    inputs = ParameterVector("x", 2)
    encoder = QuantumCircuit(2)
    for qubit in range(2):
        encoder.ry(inputs[qubit].log(), qubit)
    return CircuitTemplate(encoder, real_amplitudes(2, reps=1, parameter_prefix="w"), readout="z")


def quick(**options):
    return QDEQClassifier(**{"epochs": 3, "random_state": 0, **options})


# checks fit on data no equilibrium model was made for; what they compare does not depend on convergence
@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_estimator_contract(estimator, check):
    check(estimator)


class TestUseInScikitLearn:
    def test_default_classifier_beats_ninety_percent_on_iris(self, iris):
        x, y, x_test, y_test = iris
        assert QDEQClassifier(random_state=0).fit(x, y).score(x_test, y_test) >= 0.9

    def test_pipeline_equals_scaling_by_hand(self, iris):
        x, y, x_test, _ = iris
        raw, raw_test = 5 * x + 20, 5 * x_test + 20
        scaler = StandardScaler().fit(raw)
        by_hand = quick().fit(scaler.transform(raw), y).predict_proba(scaler.transform(raw_test))
        piped = make_pipeline(StandardScaler(), quick()).fit(raw, y).predict_proba(raw_test)
        np.testing.assert_array_equal(piped, by_hand)

    def test_grid_search_picks_the_better_number_of_epochs(self, iris):
        search = GridSearchCV(quick(), {"epochs": [1, 40], "mode": ["direct"]}, cv=3).fit(*iris[:2])
        assert search.best_params_ == {"epochs": 40, "mode": "direct"}
        assert search.best_score_ > 0.8

    def test_cross_validation_scores_every_fold(self, iris):
        scores = cross_val_score(quick(mode="direct", epochs=20), *iris[:2], cv=3)
        assert scores.shape == (3,)
        assert (scores > 0.6).all()

    def test_clone_keeps_arguments_and_forgets_the_fit(self, fitted, iris):
        copy = clone(fitted.set_params(verbose=False))
        assert repr(copy.get_params()) == repr(fitted.get_params())
        with pytest.raises(NotFittedError):
            copy.predict(iris[2])

    def test_clone_keeps_solver_backward_and_template_objects_usable(self, iris, template):
        original = quick(
            solver=solver("broyden", start_inverse="jacobian"), backward=Backward("neumann", terms=3), template=template
        )
        first, second = (model.fit(*iris[:2]).predict_proba(iris[2]) for model in (original, clone(original)))
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("way", ["pickle", "joblib"])
    def test_stored_classifier_predicts_the_same(self, fitted, iris, way):
        if way == "pickle":
            loaded = pickle.loads(pickle.dumps(fitted))
        else:
            buffer = io.BytesIO()
            joblib.dump(fitted, buffer)
            buffer.seek(0)
            loaded = joblib.load(buffer)
        np.testing.assert_array_equal(loaded.predict_proba(iris[2]), fitted.predict_proba(iris[2]))

    def test_stored_classifier_with_a_circuit_of_the_user_predicts_the_same(self, iris, template):
        model = quick(template=template).fit(*iris[:2])
        loaded = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(loaded.predict_proba(iris[2]), model.predict_proba(iris[2]))


class TestPredictions:
    def test_probabilities_sum_to_one_and_agree_with_labels_and_logits(self, fitted, iris):
        x = iris[2]
        probabilities, logits = fitted.predict_proba(x), fitted.decision_function(x)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
        np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(x))
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, expected, atol=1e-12)

    def test_log_probabilities_are_logarithms_and_finite_where_probabilities_are_zero(self, fitted, iris):
        x = iris[2]
        np.testing.assert_allclose(fitted.predict_log_proba(x), np.log(fitted.predict_proba(x)), rtol=1e-10, atol=1e-14)
        certain = clone(fitted).fit(*iris[:2])
        _, matrix, bias = certain.model_.split(certain.parameters_)
        matrix *= 1e4
        bias *= 1e4
        assert (certain.predict_proba(x) == 0).any()
        logits = certain.decision_function(x)
        best = logits.max(axis=1, keepdims=True)
        np.testing.assert_allclose(certain.predict_log_proba(x), logits - best, rtol=1e-10, atol=1)

    def test_decision_function_of_two_classes_is_one_column_whose_sign_is_the_label(self, iris):
        x, y, x_test, _ = iris
        model = quick().fit(x[y > 0], y[y > 0])
        decision = model.decision_function(x_test)
        assert decision.shape == (len(x_test),)
        np.testing.assert_array_equal(np.where(decision > 0, 2, 1), model.predict(x_test))

    @pytest.mark.parametrize(
        "labels",
        [
            np.array(["setosa", "versicolor", "virginica"]),
            np.array(["c", "b", "a"], dtype=object),
            np.array([-7, 0, 7]),
            np.array([0.0, 1.0, 2.0]),
        ],
        ids=["strings", "objects", "negative", "floats"],
    )
    def test_labels_of_any_kind_only_rename_the_predictions(self, iris, labels):
        x, y, x_test, _ = iris
        order = np.argsort(labels)
        plain = quick().fit(x, np.argsort(order)[y]).predict(x_test)
        named = quick().fit(x, labels[y]).predict(x_test)
        np.testing.assert_array_equal(named, labels[order][plain])

    def test_boolean_labels(self, iris):
        x, y, x_test, _ = iris
        assert quick().fit(x, y == 0).predict(x_test).dtype == bool

    @pytest.mark.parametrize("options", [{}, {"encoding": "angle"}, {"mode": "direct"}, {"solver": "broyden"}])
    def test_predictions_do_not_depend_on_batch_mates(self, iris, options):
        model = quick(**options).fit(*iris[:2])
        together = model.predict_proba(iris[2])
        alone = np.vstack([model.predict_proba(row[None]) for row in iris[2]])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)

    def test_equilibrium_is_a_fixed_point_of_the_model(self, fitted, iris):
        found = fitted.equilibrium(iris[2])
        assert found.converged.all()
        weights, _, _ = fitted.model_.split(fitted.parameters_)
        inputs = fitted.model_.prepare(iris[2])
        values = fitted.model_.evaluator.bind(weights).map(inputs).at(found.state).values
        np.testing.assert_allclose(values, found.state, atol=2e-6)

    def test_same_seed_same_result_and_another_seed_another(self, iris):
        first, second, third = (quick(random_state=s).fit(*iris[:2]).parameters_ for s in (5, 5, 6))
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, third)

    def test_random_state_object_gives_another_model_at_each_fit(self, iris):
        model = quick(random_state=np.random.RandomState(0))
        assert not np.array_equal(model.fit(*iris[:2]).parameters_, model.fit(*iris[:2]).parameters_)

    def test_fitting_again_starts_afresh(self, fitted, iris):
        model = quick().fit(*iris[:2])
        np.testing.assert_array_equal(model.fit(*iris[:2]).parameters_, fitted.parameters_)
        assert model.n_iter_ == len(model.history_) == 3

    @pytest.mark.parametrize("dtype", ["int8", "float32", "object", "fortran", "strided", "list"])
    def test_layout_and_type_of_the_data_do_not_matter(self, dtype):
        values = np.random.default_rng(1).integers(-3, 4, size=(30, 4))
        labels = np.arange(30) % 2
        given = {
            "fortran": lambda: np.asfortranarray(values.astype(float)),
            "strided": lambda: np.repeat(values.astype(float), 2, axis=1)[:, ::2],
            "list": lambda: values.tolist(),
        }.get(dtype, lambda: values.astype(dtype))()
        plain = quick().fit(values.astype(float), labels)
        np.testing.assert_array_equal(quick().fit(given, labels).parameters_, plain.parameters_)

    def test_samples_without_an_equilibrium_are_reported_as_asked(self, iris):
        model = quick().fit(*iris[:2]).set_params(solver=solver("newton", tol=0.0, max_steps=1))
        with pytest.warns(ConvergenceWarning, match="have no equilibrium"):
            model.predict(iris[2])
        with pytest.raises(ConvergenceError, match="50 of 50 samples"):
            model.set_params(on_failure="raise").predict(iris[2])
        assert model.set_params(on_failure="accept").predict(iris[2]).shape == (50,)

    def test_warnings_point_at_the_line_of_the_caller(self, iris):
        model = quick().fit(*iris[:2]).set_params(solver=solver("newton", tol=0.0, max_steps=1))
        calls = [lambda: model.predict(iris[2]), lambda: make_pipeline(model).predict_proba(iris[2])]
        for call in calls:
            with pytest.warns(ConvergenceWarning) as caught:
                call()
            assert {warning.filename for warning in caught} == {__file__}
        with pytest.warns(UserWarning, match="constant") as caught:
            quick().fit(np.ones((100, 4)), iris[1])
        assert caught[0].filename == __file__

    def test_validation_keeps_the_best_epoch_and_patience_stops(self, iris):
        model = quick(epochs=200, learning_rate=0.3, validation_fraction=0.3, patience=3).fit(*iris[:2])
        losses = [record["valid_loss"] for record in model.history_]
        assert model.n_iter_ == len(losses) == int(np.argmin(losses)) + 1 + 3
        assert model.n_iter_ < 200


class TestTemplate:
    def test_circuit_of_the_user_is_trained(self, iris):
        mine = CircuitTemplate(zz_feature_map(2), real_amplitudes(2, reps=1, parameter_prefix="w"), readout="zz")
        model = quick(template=mine, mode="direct").fit(iris[0][:, :2], iris[1])
        assert model.model_.template is mine
        assert model.parameters_.shape == (mine.num_weights + 3 * (mine.num_readouts + 1),)

    def test_template_with_one_input_more_takes_the_bias(self, iris):
        mine = CircuitTemplate(AmplitudeEncoder(5), real_amplitudes(3, reps=1, parameter_prefix="w"))
        model = quick(template=mine, bias=2.0).fit(*iris[:2])
        np.testing.assert_array_equal(model.model_.prepare(iris[2])[:, -1], 2.0)
        zeros = np.zeros((1, 4))
        assert np.isfinite(model.predict_proba(zeros)).all()

    def test_template_of_another_width_is_refused_with_both_widths(self, iris, template):
        with pytest.raises(InputError, match="template encodes 4 features, X has 2"):
            quick(template=template).fit(iris[0][:, :2], iris[1])

    @pytest.mark.parametrize(
        ("name", "value"),
        [("preset", "paper"), ("num_qubits", 2), ("encoding", "angle"), ("ansatz", "random"), ("readout", "z")],
    )
    def test_arguments_a_template_decides_are_refused_beside_it(self, iris, template, name, value):
        with pytest.raises(InputError, match=f"template decides the circuit, so {name}={value!r} would have no effect"):
            quick(template=template, **{name: value}).fit(*iris[:2])

    def test_arguments_that_act_beside_a_template_are_taken(self, iris, template):
        model = quick(template=template, state_scale=0.25, dtype="float32").fit(*iris[:2])
        assert (model.model_.state_scale, model.model_.dtype) == (0.25, "float32")

    def test_a_bias_without_a_spare_input_is_refused_and_so_is_a_spare_input_without_a_bias(self, iris, template):
        with pytest.raises(InputError, match=r"bias 2\.0 has no effect"):
            quick(template=template, bias=2.0).fit(*iris[:2])
        spare = CircuitTemplate(AmplitudeEncoder(5), real_amplitudes(3, reps=1, parameter_prefix="w"))
        with pytest.raises(InputError, match="bias is 0, but the template has 5 inputs for 4 features"):
            quick(template=spare, bias=0).fit(*iris[:2])


class TestPartialFit:
    def test_it_learns_and_counts_epochs(self, iris):
        x, y, x_test, y_test = iris
        model = quick()
        for _ in range(30):
            model.partial_fit(x, y, classes=[0, 1, 2])
        assert model.n_iter_ == len(model.history_) == 30
        assert model.history_[-1]["loss"] < model.history_[0]["loss"]
        assert model.score(x_test, y_test) > 0.8

    def test_it_continues_from_fit(self, iris):
        x, y, _, _ = iris
        model = quick(epochs=20).fit(x, y)
        before = model.parameters_.copy()
        model.partial_fit(x, y)
        assert model.n_iter_ == 21
        assert 0 < np.abs(model.parameters_ - before).max() < 1

    def test_batches_may_lack_classes(self, iris):
        x, y, x_test, _ = iris
        model = quick().partial_fit(x[y == 2], y[y == 2], classes=[0, 1, 2])
        assert model.predict_proba(x_test).shape == (50, 3)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("state_scale", 0.1), ("readout", "z"), ("encoding", "angle"), ("optimizer", "sgd"), ("dtype", "float32")],
    )
    @pytest.mark.parametrize("first", ["fit", "partial_fit"])
    def test_an_argument_of_the_model_cannot_change_on_the_way(self, iris, name, value, first):
        x, y, x_test, _ = iris
        model = quick(epochs=1)
        model = model.fit(x, y) if first == "fit" else model.partial_fit(x, y, classes=[0, 1, 2])
        before = model.predict_proba(x_test)
        model.set_params(**{name: value})
        with pytest.raises(InputError, match=f"{name}={value!r} changed .* call fit"):
            model.partial_fit(x, y)
        np.testing.assert_array_equal(model.predict_proba(x_test), before)
        model.fit(x, y).partial_fit(x, y)

    def test_a_copy_continues_with_its_template(self, iris, template):
        model = quick(template=template).partial_fit(*iris[:2], classes=[0, 1, 2])
        again = pickle.loads(pickle.dumps(model)).partial_fit(*iris[:2])
        np.testing.assert_array_equal(again.parameters_, model.partial_fit(*iris[:2]).parameters_)

    def test_training_arguments_may_change_on_the_way(self, iris):
        model = quick().partial_fit(*iris[:2], classes=[0, 1, 2])
        assert model.set_params(learning_rate=0.01, mode="direct").partial_fit(*iris[:2]).n_iter_ == 2

    def test_first_call_needs_classes(self, iris):
        with pytest.raises(InputError, match="classes must list all labels"):
            quick().partial_fit(*iris[:2])

    def test_classes_may_not_change(self, iris):
        model = quick().partial_fit(*iris[:2], classes=[0, 1, 2])
        with pytest.raises(InputError, match="classes must stay"):
            model.partial_fit(*iris[:2], classes=[0, 1, 2, 3])

    def test_new_label_is_refused_by_name_and_leaves_the_model_as_it_was(self, iris):
        x, y, x_test, _ = iris
        model = quick().partial_fit(x, y, classes=[0, 1, 2])
        before = model.predict_proba(x_test)
        with pytest.raises(InputError, match=r"labels \[9\]"):
            model.partial_fit(x, np.where(y == 2, 9, y))
        np.testing.assert_array_equal(model.predict_proba(x_test), before)


BAD = {
    "preset": ["authors", None],
    "num_qubits": [0, -1, 1, 2.5, "4"],
    "encoding": ["basis", None],
    "ansatz": ["ring", 3],
    "readout": ["zzzzz", ""],
    "template": [3, "paper"],
    "state_scale": [float("nan"), float("inf"), "1"],
    "bias": [float("nan"), float("inf"), "x", None],
    "mode": ["explicit", None],
    "layers": [0, -1, 1.5, "1", None, True],
    "warmup_steps": [-1, 1.5, None],
    "solver": ["Newton", "scipy:brentq", 3, ["newton"]],
    "backward": ["autograd", 3],
    "start": ["ones", None],
    "regularization": ["l2", None],
    "regularization_strength": [-1, float("nan"), "1"],
    "epochs": [0, -1, 1.5, None, "3"],
    "batch_size": [0, -1, 1.5, None],
    "optimizer": ["lbfgs", None],
    "learning_rate": [0, -1, float("nan"), float("inf"), "fast", None],
    "schedule": ["warm", None],
    "weight_decay": [-1, float("nan"), None],
    "clip_norm": [-1, float("nan"), None],
    "dropout": [-0.1, 1, float("nan"), None],
    "patience": [-1, 1.5, 3],
    "validation_fraction": [-0.1, 1, 1.5, float("nan"), "x"],
    "backend": ["ear", "fake:manilla", 3, None],
    "estimator": [3, "aer"],
    "shots": [5, 0, -1, 1.5, "many"],
    "sampling": [3, "fine"],
    "journal": [3, "", "jobs.jsonl"],
    "budget": [3, "600 parsecs", "600s"],
    "dtype": ["float16", None],
    "on_failure": ["ignore", None],
    "random_state": [-1, "x", 1.5],
}

BAD_ARGUMENTS = [pytest.param(name, value) for name, values in BAD.items() for value in values]


class TestMistakes:
    @pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
    def test_bad_argument_is_refused_by_name_and_value(self, iris, name, value):
        with pytest.raises(ValueError) as caught:
            quick(**{name: value}).fit(*iris[:2])
        # "scipy:brentq" is refused as the method "brentq" of scipy; patience without validation names the remedy
        shown = value.split(":")[-1] if isinstance(value, str) else f"{value!r}"
        assert name.split("_")[0] in str(caught.value)
        assert shown in str(caught.value) or name == "patience"

    def test_every_constructor_argument_is_covered(self):
        assert set(QDEQClassifier().get_params()) - set(BAD) == {"verbose"}

    def test_shine_needs_broyden(self, iris):
        with pytest.raises(InputError, match="solver 'broyden', got 'newton'"):
            quick(backward="shine").fit(*iris[:2])

    def test_one_class_is_refused(self, iris):
        with pytest.raises(InputError, match="at least 2 classes"):
            quick().fit(iris[0], np.zeros(100))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, iris, fitted, bad):
        x = iris[0].copy()
        x[3, 1] = bad
        for call in (lambda: quick().fit(x, iris[1]), lambda: fitted.predict(x)):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                call()

    def test_zero_row_without_a_bias_is_refused_by_its_number(self, iris):
        x = iris[0].copy()
        x[7] = 0
        with pytest.raises(InputError, match=r"sample 7 .*zero"):
            quick(bias=0).fit(x, iris[1])
        assert np.isfinite(quick().fit(x, iris[1]).predict_proba(x)).all()

    def test_another_width_when_predicting_is_refused(self, fitted, iris):
        with pytest.raises(ValueError, match="expecting 4 features"):
            fitted.predict(iris[2][:, :3])

    @pytest.mark.parametrize(
        "call", ["predict", "predict_proba", "predict_log_proba", "decision_function", "equilibrium"]
    )
    def test_use_before_fit_is_refused(self, iris, call):
        with pytest.raises(NotFittedError):
            getattr(quick(), call)(iris[2])

    def test_failed_fit_leaves_an_unfitted_classifier(self, iris):
        model = quick(epochs=0)
        with pytest.raises(InputError):
            model.fit(*iris[:2])
        with pytest.raises(NotFittedError):
            model.predict(iris[2])

    def test_failed_fit_of_a_fitted_classifier_never_mixes_old_weights_with_new_labels(self, iris):
        x, y, x_test, _ = iris
        model = quick().fit(x, y)
        before = model.predict(x_test)
        with pytest.raises(InputError):
            model.set_params(epochs=0).fit(x, np.array(["c", "b", "a"])[y])
        try:
            after = model.predict(x_test)
        except NotFittedError:
            return
        np.testing.assert_array_equal(after, before)

    @pytest.mark.parametrize("scale", [1e200, 1e-200])
    @pytest.mark.parametrize("options", [{"bias": 0}, {"mode": "direct"}], ids=["equilibrium", "direct"])
    def test_extreme_scales_train_or_are_refused_as_data_never_give_nan(self, iris, scale, options):
        x, y, _, _ = iris
        model = quick(**options, on_failure="accept")
        try:
            model.fit(x * scale, y)
        except InputError as error:
            assert "sample" in str(error)  # noqa: PT017
        else:
            assert np.isfinite(model.predict_proba(x * scale)).all()

    def test_empty_data_are_refused(self):
        with pytest.raises(ValueError, match="0 sample"):
            quick().fit(np.zeros((0, 4)), np.zeros(0))

    def test_continuous_labels_are_refused(self, iris):
        with pytest.raises(ValueError, match="continuous"):
            quick().fit(iris[0], iris[1] + 0.5)

    def test_too_many_features_for_the_qubits_are_refused_with_the_number_needed(self, iris):
        with pytest.raises(InputError, match="num_qubits >= 2"):
            quick(num_qubits=1).fit(*iris[:2])

    @pytest.mark.parametrize("num_qubits", [22, 25])
    @pytest.mark.parametrize("encoding", ["amplitude", "angle"])
    def test_circuits_too_large_to_simulate_are_refused_with_their_memory(self, iris, num_qubits, encoding):
        with pytest.raises(InputError, match=f"num_qubits {num_qubits} .* GB"):
            quick(num_qubits=num_qubits, encoding=encoding).fit(*iris[:2])

    def test_samples_outside_of_the_encoders_domain_are_refused_by_row_and_angle(self, iris):
        x, y = np.abs(iris[0][:, :2]) + 0.1, iris[1]
        model = quick(template=log_template(), state_scale=0.01).fit(x, y)
        x[3, 1] = -0.5
        for call in (lambda: model.predict(x), lambda: quick(template=log_template()).fit(x, y)):
            with pytest.raises(InputError, match=r"sample 3 of x .*log\(x\[1\]\) at x\[1\] = -0.5 is not finite"):
                call()

    def test_a_fed_back_state_outside_of_the_encoders_domain_is_an_error_not_nan(self):
        x, y = np.array([[0.05, 0.05], [3.0, 3.0]] * 5), np.array([0, 1] * 5)
        model = quick(template=log_template(), state_scale=0.0, mode="direct", layers=2).fit(x, y)
        model.model_ = QDEQModel(log_template(), 2, state_scale=-3.0)
        model.parameters_ = np.zeros_like(model.parameters_)
        with pytest.raises(InputError, match="leave the domain"):
            model.predict_proba(x)


class TestEdges:
    def test_batches_of_one_sample(self, iris):
        model = quick(batch_size=1, epochs=1).fit(iris[0][:12], iris[1][:12])
        assert np.isfinite(model.predict_proba(iris[2])).all()

    def test_one_sample_per_class_and_a_batch_larger_than_the_data(self):
        x, y = np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 1])
        model = quick(epochs=60, batch_size=1000).fit(x, y)
        np.testing.assert_array_equal(model.predict(x), y)

    def test_constant_features_warn_and_do_not_break(self, iris):
        x = np.ones((100, 4))
        with pytest.warns(UserWarning, match="constant"):
            model = quick().fit(x, iris[1])
        assert np.isfinite(model.predict_proba(x)).all()

    def test_one_feature_suffices(self, iris):
        assert quick(epochs=30).fit(iris[0][:, 2:3], iris[1]).score(iris[2][:, 2:3], iris[3]) > 0.7

    def test_no_feedback_is_the_circuit_applied_once(self, iris):
        implicit = quick(state_scale=0.0).fit(*iris[:2])
        direct = quick(state_scale=0.0, mode="direct").fit(*iris[:2])
        np.testing.assert_allclose(implicit.predict_proba(iris[2]), direct.predict_proba(iris[2]), atol=1e-12)

    def test_single_precision_agrees_with_double(self, iris):
        single, double = (quick(dtype=kind).fit(*iris[:2]).predict_proba(iris[2]) for kind in ("float32", "float64"))
        np.testing.assert_allclose(single, double, atol=1e-3)
