"""QDEQRegressor is a scikit-learn regressor like any other, on the training that classifiers use, with another loss."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from qiskit_qdeq import QDEQClassifier, QDEQRegressor, Trainer, TrainingConfig, model_config
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import BudgetError, CheckpointError, ConvergenceError, InputError
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.losses import loss_and_slope
from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint
from qiskit_qdeq.training.step import training_step

CHECKED = [
    QDEQRegressor(epochs=40, random_state=0),
    QDEQRegressor(epochs=30, encoding="angle", mode="direct", layers=2, random_state=0),
]


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn_estimator_contract(estimator, check):
    check(estimator)


def waves(outputs=None):
    """Samples (80, 2), and one wave of them or a table of several at very different scales."""
    x = np.random.default_rng(0).uniform(-1, 1, (80, 2))
    columns = [np.sin(2 * x[:, 0] + x[:, 1]), 1000 + 50 * x[:, 0] * x[:, 1], 1e-6 * np.cos(3 * x[:, 1])]
    return x, columns[0] if outputs is None else np.stack(columns[:outputs], axis=1)


def quick(**options):
    return QDEQRegressor(**{"epochs": 3, "random_state": 0, **options})


class TestFit:
    def test_it_leaves_less_than_half_of_what_a_linear_model_misses_of_a_wave(self):
        x, y = waves()
        missed = [
            1 - model.fit(x[:60], y[:60]).score(x[60:], y[60:])
            for model in (QDEQRegressor(random_state=0), LinearRegression())
        ]
        assert missed[0] < 0.5 * missed[1]

    def test_it_explains_about_as_much_of_diabetes_as_a_linear_model(self):
        x, y = load_diabetes(return_X_y=True)
        x = 10 * x
        # a linear model explains about half of the variance
        assert QDEQRegressor(epochs=25, random_state=0).fit(x[:300], y[:300]).score(x[300:], y[300:]) > 0.4

    def test_targets_of_any_scale_are_learned_side_by_side(self):
        x, y = waves(3)
        model = QDEQRegressor(random_state=0).fit(x, y)
        found = model.predict(x)
        assert found.shape == y.shape
        explained = 1 - ((found - y) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        # the mean explains nothing; without scaling, the readout would start a million times off the third
        assert (explained > 0.8).all()

    def test_predictions_follow_an_affine_change_of_the_targets(self):
        x, y = waves()
        first, second = (quick().fit(x, targets) for targets in (y, 300 * y - 7))
        np.testing.assert_allclose(second.predict(x), 300 * first.predict(x) - 7, atol=1e-8)

    @pytest.mark.parametrize("shape", [(80,), (80, 1), (80, 2)])
    def test_predictions_have_the_shape_of_the_targets(self, shape):
        x, _ = waves()
        y = np.random.default_rng(1).normal(size=shape)
        assert quick(epochs=1).fit(x, y).predict(x[:7]).shape == (7, *shape[1:])

    def test_a_constant_target_is_predicted_as_it_is(self):
        x, _ = waves()
        model = quick(epochs=40).fit(x, np.full(80, 0.1))
        assert model.target_scale_ == 1
        np.testing.assert_allclose(model.predict(x), 0.1, atol=0.05)

    def test_history_has_the_error_of_scaled_targets_and_no_accuracy(self):
        x, y = waves()
        model = quick(validation_fraction=0.25).fit(x, y)
        assert len(model.history_) == 3
        assert {"loss", "valid_loss"} <= set(model.history_[0])
        assert not {"accuracy", "valid_accuracy"} & set(model.history_[0])
        # predicting the mean would cost 1
        assert 0 < model.history_[-1]["loss"] < 1

    def test_its_learning_curves_can_be_drawn(self):
        from qiskit_qdeq.visualization import plot_history

        figure = plot_history(quick().fit(*waves()).history_)
        assert "accuracy" not in [axes.get_title() for axes in figure.axes]
        assert figure.axes[0].get_ylabel() == "mean squared error (scaled targets)"

    def test_verbose_training_shows_the_loss(self, capsys):
        quick(verbose=True, validation_fraction=0.25).fit(*waves())
        assert "loss" in capsys.readouterr().err

    def test_it_trains_from_shots(self):
        x, y = waves()
        model = quick(epochs=2, batch_size=20, backend="aer", shots=500).fit(x[:20], y[:20])
        assert model.history_[-1]["shots"] > 0
        assert np.isfinite(model.predict(x[:3])).all()

    def test_a_fit_that_a_budget_ends_keeps_what_it_has(self):
        x, y = waves()
        model = quick(batch_size=10, backend="statevector", budget="400 circuits")
        with pytest.raises(BudgetError) as ended:
            model.fit(x[:20], y[:20])
        assert "the regressor keeps" in ended.value.__notes__[0]
        assert model.set_params(budget=None).predict(x[:3]).shape == (3,)


class TestPartialFit:
    def test_epochs_add_up_and_lower_the_loss(self):
        x, y = waves()
        model = quick()
        for _ in range(20):
            model.partial_fit(x, y)
        assert model.n_iter_ == len(model.history_) == 20
        assert model.history_[-1]["loss"] < 0.5 * model.history_[0]["loss"]

    def test_targets_are_scaled_as_at_first(self):
        x, y = waves()
        model = quick().partial_fit(x, y)
        mean = model.target_mean_.copy()
        np.testing.assert_array_equal(model.partial_fit(x, y + 5).target_mean_, mean)

    @pytest.mark.parametrize(("first", "then"), [(None, 2), (2, 3), (1, None)])
    def test_another_number_of_targets_is_refused(self, first, then):
        x, y = waves(first)
        model = quick().partial_fit(x, y)
        with pytest.raises(InputError, match="as before"):
            model.partial_fit(*waves(then))

    def test_a_changed_model_is_refused(self):
        model = quick().partial_fit(*waves())
        with pytest.raises(InputError, match="since this regressor was fitted"):
            model.set_params(readout="z").partial_fit(*waves())


class TestMistakes:
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.full(80, np.nan), "NaN"),
            (np.linspace(-1, 1, 80) * 1e308, "too large to be scaled"),
            (np.zeros((80, 0)), "minimum of 1"),
            (np.zeros(79), "inconsistent numbers of samples"),
        ],
    )
    def test_targets_that_cannot_be_learned_are_named(self, y, message):
        with pytest.raises(ValueError, match=message):
            quick().fit(waves()[0], y)

    def test_arguments_are_checked_as_those_of_the_classifier(self):
        with pytest.raises(InputError, match="patience"):
            quick(patience=3).fit(*waves())
        assert QDEQRegressor().get_params() == QDEQClassifier().get_params()

    def test_before_fit_there_is_nothing_to_predict_or_save(self, tmp_path):
        with pytest.raises(NotFittedError):
            quick().predict(waves()[0])
        with pytest.raises(NotFittedError):
            quick().save(tmp_path / "regressor.safetensors")

    @pytest.mark.parametrize(
        ("loss", "targets", "message"),
        [
            ("squared_error", np.zeros(6), r"shape \(6, 2\)"),
            ("squared_error", np.full((6, 2), np.inf), "finite"),
            ("squared_error", np.zeros((6, 2), bool), "finite numbers"),
            ("cross_entropy", np.zeros((6, 2)), r"shape \(6,\)"),
        ],
    )
    def test_a_trainer_names_targets_that_do_not_fit_its_loss(self, loss, targets, message):
        model = model_config("default", 3, 2, 2).build()
        with pytest.raises(InputError, match=message):
            Trainer(model, TrainingConfig(loss=loss), np.ones((6, 3)), targets)

    def test_classes_need_two_outputs_and_a_loss_its_name(self):
        with pytest.raises(InputError, match="one class leaves nothing to learn"):
            Trainer(model_config("default", 3, 1, 2).build(), TrainingConfig(), np.ones((6, 3)), np.zeros(6, int))
        with pytest.raises(InputError, match="loss must be one of"):
            TrainingConfig(loss="hinge")

    def test_a_loss_that_leaves_the_numbers_is_an_error(self):
        model = model_config("default", 3, 1, 2).build()
        with pytest.raises(ConvergenceError, match="not finite"):
            Trainer(model, TrainingConfig(loss="squared_error"), np.ones((6, 3)), np.full((6, 1), 1e200)).run()


class TestFiles:
    @pytest.mark.parametrize("outputs", [None, 1, 3])
    def test_a_loaded_regressor_predicts_and_goes_on_bit_for_bit(self, tmp_path, outputs):
        x, y = waves(outputs)
        path = tmp_path / "regressor.safetensors"
        first = quick().fit(x, y)
        first.save(path)
        second = QDEQRegressor.load(path)
        np.testing.assert_array_equal(second.predict(x), first.predict(x))
        assert (second.get_params(), second.history_) == (first.get_params(), first.history_)
        for model in (first, second):
            model.partial_fit(x, y)
        np.testing.assert_array_equal(second.parameters_, first.parameters_)

    def test_regressors_and_classifiers_are_not_taken_for_each_other(self, tmp_path):
        x, y = waves()
        quick().fit(x, y).save(tmp_path / "regressor.safetensors")
        QDEQClassifier(epochs=1).fit(x, y > 0).save(tmp_path / "classifier.safetensors")
        with pytest.raises(CheckpointError, match=r"holds a regressor: read it with QDEQRegressor\.load"):
            QDEQClassifier.load(tmp_path / "regressor.safetensors")
        with pytest.raises(CheckpointError, match=r"holds a classifier: read it with QDEQClassifier\.load"):
            QDEQRegressor.load(tmp_path / "classifier.safetensors")

    @pytest.mark.parametrize("name", ["target_mean", "target_scale"])
    @pytest.mark.parametrize("wrong", [np.zeros(2), np.zeros((1, 1)), np.array([np.nan]), np.zeros(0)])
    def test_files_with_a_wrong_scale_are_refused(self, tmp_path, name, wrong):
        path = tmp_path / "regressor.safetensors"
        quick(epochs=1).fit(*waves()).save(path)
        found = load_checkpoint(path)
        save_checkpoint(path, {**found.arrays, name: wrong}, found.document)
        with pytest.raises(CheckpointError, match="cannot be made a regressor"):
            QDEQRegressor.load(path)


class TestLoss:
    def test_its_slope_is_the_derivative(self):
        rng = np.random.default_rng(0)
        outputs, targets = rng.normal(size=(2, 5, 3))
        _, slope, correct = loss_and_slope("squared_error", outputs, targets)
        step = 1e-6
        for place in np.ndindex(outputs.shape):
            moved = np.zeros_like(outputs)
            moved[place] = step
            rise, fall = (loss_and_slope("squared_error", outputs + sign * moved, targets)[0] for sign in (1, -1))
            assert slope[place] == pytest.approx((rise - fall) / (2 * step), abs=1e-8)
        assert correct is None

    @pytest.mark.parametrize("mode", ["implicit", "direct"])
    def test_the_gradient_of_a_step_equals_finite_differences(self, mode):
        model = model_config("default", 3, 2, 2).build()
        rng = np.random.default_rng(1)
        parameters = model.initial_parameters(0)
        inputs, targets = model.prepare(rng.normal(size=(5, 3))), rng.normal(size=(5, 2))
        config = TrainingConfig(mode=mode, layers=2, loss="squared_error")

        def step(at):
            return training_step(
                model, at, inputs, targets, config, direct=mode == "direct", initial=None, rng=lambda: rng
            )

        gradient = [
            (step(parameters + 1e-6 * d).loss - step(parameters - 1e-6 * d).loss) / 2e-6
            for d in np.eye(len(parameters))
        ]
        np.testing.assert_allclose(step(parameters).gradient, gradient, atol=1e-7)

    def test_evaluation_gives_the_mean_squared_error_and_no_accuracy(self):
        model = model_config("default", 3, 2, 2).build()
        rng = np.random.default_rng(2)
        parameters = model.initial_parameters(0)
        inputs, targets = model.prepare(rng.normal(size=(5, 3))), rng.normal(size=(5, 2))
        found = evaluate(model, parameters, inputs, targets, TrainingConfig().solver, loss="squared_error")
        assert found.accuracy is None
        assert found.cost == Cost()
        assert 0 < found.loss < np.inf

    def test_a_regression_run_resumes_bit_for_bit_and_knows_its_targets(self, tmp_path):
        x, y = waves(2)
        config = TrainingConfig(epochs=4, batch_size=16, loss="squared_error")

        def trainer(targets=y, path=None):
            return Trainer(model_config("default", 2, 2, 2).build(), config, x, targets, checkpoint=path)

        whole = trainer().run()

        class Stop:
            def on_start(self, trainer): ...
            def on_step(self, trainer, result):
                if trainer.state.step == 7:
                    trainer.stop()

            def on_epoch(self, trainer, record): ...
            def on_end(self, trainer): ...

        path = tmp_path / "run.safetensors"
        Trainer(model_config("default", 2, 2, 2).build(), config, x, y, checkpoint=path, callbacks=[Stop()]).run()
        again = trainer(path=path).resume().run()
        np.testing.assert_array_equal(again.last_parameters, whole.last_parameters)
        with pytest.raises(CheckpointError, match="train"):
            trainer(y + 0.1, path).resume()

    def test_checkpoints_of_classifiers_do_not_name_the_loss(self):
        # those written before there was a choice resume
        assert "loss" not in TrainingConfig().as_dict()
        assert TrainingConfig(loss="squared_error").as_dict()["loss"] == "squared_error"
