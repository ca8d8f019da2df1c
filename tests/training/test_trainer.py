"""Training runs: repeatable bit for bit, resumable after anything, and clear about what cannot be trained."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from numba.core import event
from oracles import build_model

from qiskit_qdeq.equilibrium import Anderson, Broyden, Newton, Picard, ScipyRoot
from qiskit_qdeq.exceptions import CheckpointError, CheckpointWarning, ConvergenceError, ConvergenceWarning, InputError
from qiskit_qdeq.gradient import Backward, Regularization
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.training import saving
from qiskit_qdeq.training import trainer as trainer_module
from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.stopwatch import Stopwatch
from qiskit_qdeq.training.trainer import Trainer

SMALL = TrainingConfig(epochs=4, batch_size=8, learning_rate=0.05, seed=3)


def blobs(count=28, seed=0):
    """Three classes of six features around different centres."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = np.array([[2.0, 0, 0, 1, 0, 0], [0, 2, 0, 0, 1, 0], [0, 0, 2, 0, 0, 1]])
    return centres[labels] + 0.3 * rng.normal(size=(count, 6)), labels


def make(config=SMALL, *, kind="amplitude", valid=True, seed=0, model=None, checkpoint_seconds=0, **options):
    model = model or build_model(kind, state_scale=0.5)
    x_valid, y_valid = blobs(12, seed + 1) if valid else (None, None)
    timing = {"checkpoint_seconds": checkpoint_seconds}
    return Trainer(model, config, *blobs(seed=seed), x_valid, y_valid, **timing, **options)


def without_time(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def assert_same(first, second):
    """Two results are the same bit for bit."""
    np.testing.assert_array_equal(first.parameters, second.parameters)
    np.testing.assert_array_equal(first.last_parameters, second.last_parameters)
    assert without_time(first.history) == without_time(second.history)
    assert (first.best_epoch, first.steps, first.stopped) == (second.best_epoch, second.steps, second.stopped)


class StopAt:
    """Ends a run from outside after a number of steps."""

    class Stopped(Exception):
        pass

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, result):
        if trainer.state.step == self.step:
            raise self.Stopped

    def on_epoch(self, trainer, record):
        pass


CONFIGS = {
    "plain": SMALL,
    "warm_dropout": dataclasses.replace(SMALL, start="warm", dropout=0.2, clip_norm=0.1),
    "warm_up": dataclasses.replace(SMALL, warmup_steps=6, layers=2, weight_decay=0.01),
    "direct": dataclasses.replace(SMALL, mode="direct", layers=2, dropout=0.1, optimizer="sgd"),
    "broyden_hutchinson": dataclasses.replace(
        SMALL,
        solver=Broyden(tol=1e-6),
        backward=Backward("shine"),
        regularization=Regularization("hutchinson", 0.3),
        schedule="exponential",
    ),
    "start_random": dataclasses.replace(SMALL, solver=Broyden(tol=1e-3), start="random", warmup_steps=1),
    "start_direct": dataclasses.replace(SMALL, solver=Anderson(), start="direct", layers=3, schedule="step"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(name):
    config = CONFIGS[name]
    first = make(config).run()
    assert_same(first, make(config).run())
    other = make(dataclasses.replace(config, seed=4)).run()
    assert not np.array_equal(first.last_parameters, other.last_parameters)
    assert first.steps == 4 * 4
    assert [record["epoch"] for record in first.history] == [1, 2, 3, 4]
    assert all(np.isfinite(list(record.values())).all() for record in first.history)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stop", [3, 4, 9, 16])
def test_a_run_cut_off_at_any_step_and_resumed_is_the_uninterrupted_run(tmp_path, name, stop, dtype):
    """Checkpoints are written every third step and after epochs of four, so 9 lies inside an epoch."""
    config, path = CONFIGS[name], tmp_path / "run.safetensors"
    model = build_model("amplitude", state_scale=0.5, dtype=dtype)
    whole = make(config, model=model).run()
    cut = make(config, model=model, callbacks=[StopAt(stop)], checkpoint=path, checkpoint_every=3)
    with pytest.raises(StopAt.Stopped):
        cut.run()
    if not path.exists():
        # the callback of the third step comes before its checkpoint
        assert stop == 3
        return
    again = make(config, model=model, checkpoint=path, checkpoint_every=3).resume()
    assert again.state.step == {4: 3, 9: 8, 16: 15}[stop]
    assert_same(again.run(), whole)
    finished = make(config, model=model, checkpoint=path).resume()
    assert_same(finished.run(), whole)


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_processes_and_not_the_time_between(tmp_path):
    class Slowly(StopAt):
        def on_step(self, trainer, result):
            time.sleep(0.02)
            super().on_step(trainer, result)

    path = tmp_path / "run.safetensors"
    began = time.perf_counter()
    first = make(checkpoint=path, checkpoint_every=1, callbacks=[Slowly(7)])
    with pytest.raises(StopAt.Stopped):
        first.run()
    ended = time.perf_counter()
    time.sleep(0.3)
    began_again = time.perf_counter()
    second = make(checkpoint=path, callbacks=[Slowly(-1)]).resume()
    assert 6 * 0.02 <= second.state.clock.seconds <= ended - began
    second.run()
    trained = second.state.clock.seconds
    assert 16 * 0.02 <= trained <= time.perf_counter() - began_again + ended - began
    assert len(second.step_seconds) == 10
    assert 16 * 0.02 <= make(checkpoint=path).resume().state.clock.seconds <= trained


def test_a_checkpoint_without_seconds_goes_on_from_zero(tmp_path):
    path = tmp_path / "run.safetensors"
    make(checkpoint=path).run()
    found = load_checkpoint(path)
    del found.document["seconds"]
    save_checkpoint(path, found.arrays, found.document)
    assert make(checkpoint=path).resume().state.clock.seconds == 0


def test_seconds_that_are_no_number_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    make(checkpoint=path).run()
    found = load_checkpoint(path)
    found.document["seconds"] = "long"
    save_checkpoint(path, found.arrays, found.document)
    with pytest.raises(CheckpointError, match="incomplete"):
        make(checkpoint=path).resume()


def test_compilation_does_not_count_as_training_however_it_is_nested():
    began = time.perf_counter()
    clock = Stopwatch(1.0)
    with clock:
        with event.trigger_event("numba:compile"):
            with event.trigger_event("numba:compile"):
                time.sleep(0.1)
            time.sleep(0.1)
        time.sleep(0.05)
    assert 1.05 <= clock.seconds <= 1 + time.perf_counter() - began - 0.2
    rested = clock.seconds
    with event.trigger_event("numba:compile"):
        pass
    time.sleep(0.01)
    assert clock.seconds == rested


def test_a_compilation_that_began_before_the_training_does_not_stop_its_clock():
    clock = Stopwatch()
    event.start_event("numba:compile")
    with clock:
        event.end_event("numba:compile")
        for _ in range(2):
            with event.trigger_event("numba:compile"):
                pass
        time.sleep(0.02)
    assert clock.seconds >= 0.02


def test_a_run_may_be_cut_off_again_and_again(tmp_path):
    config, path = CONFIGS["warm_dropout"], tmp_path / "run.safetensors"
    for stop in range(2, 17, 2):
        trainer = make(config, checkpoint=path, checkpoint_every=1, callbacks=[StopAt(stop)])
        if path.exists():
            trainer.resume()
        with pytest.raises(StopAt.Stopped):
            trainer.run()
    assert_same(make(config, checkpoint=path).resume().run(), make(config).run())


RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from test_trainer import CONFIGS, make

class Slow:
    def on_step(self, trainer, result):
        time.sleep(0.01)
        print(trainer.state.step, flush=True)
    def on_epoch(self, trainer, record):
        pass

make(CONFIGS["warm_dropout"], checkpoint={path!r}, checkpoint_every=1, callbacks=[Slow()]).run()
"""


def test_a_killed_process_is_resumed_to_the_uninterrupted_run(tmp_path):
    here, path = Path(__file__).parent, tmp_path / "run.safetensors"
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(RUN.format(tests=str(here), path=str(path))), "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [here, here.parent, here.parent.parent]))}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
        time.sleep(np.random.default_rng().uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    resumed = make(CONFIGS["warm_dropout"], checkpoint=path).resume()
    assert 4 <= resumed.state.step < 16
    assert_same(resumed.run(), make(CONFIGS["warm_dropout"]).run())


def _other_data(path):
    x, y = blobs()
    x[5, 2] += 1e-9
    return Trainer(build_model("amplitude", state_scale=0.5), SMALL, x, y, *blobs(12, 1), checkpoint=path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            lambda path: make(
                dataclasses.replace(SMALL, learning_rate=0.06, solver=Picard(), dropout=0.1), checkpoint=path
            ),
            ["learning_rate", "0.05", "0.06", "solver", "picard", "dropout"],
        ),
        (lambda path: make(dataclasses.replace(SMALL, seed=4), checkpoint=path), ["seed"]),
        (_other_data, ["data", "train"]),
        (lambda path: make(valid=False, checkpoint=path), ["data", "valid"]),
        (
            lambda path: make(model=build_model("amplitude", state_scale=0.4), checkpoint=path),
            ["model", "circuit"],
        ),
        (lambda path: make(kind="angle", checkpoint=path), ["model", "circuit", "AngleEncoder"]),
        (
            lambda path: make(model=build_model("amplitude", state_scale=0.5, dtype="float32"), checkpoint=path),
            ["dtype", "float32"],
        ),
        (
            lambda path: make(model=build_model("amplitude", state_scale=0.5, activation="relu"), checkpoint=path),
            ["activation", "relu"],
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_its_differences_and_left_alone(tmp_path, other, words):
    path = tmp_path / "run.safetensors"
    make(checkpoint=path).run()
    before = path.read_bytes()
    trainer = other(path)
    kept = trainer.state
    with pytest.raises(CheckpointError) as caught:
        trainer.resume()
    for word in words:
        assert word in str(caught.value)
    assert path.read_bytes() == before
    assert trainer.state is kept


def test_resuming_without_a_file_or_from_a_damaged_one_is_an_error(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(CheckpointError, match=r"run\.safetensors"):
        make(checkpoint=path).resume()
    with pytest.raises((CheckpointError, InputError), match=r"path|checkpoint"):
        make().resume()
    make(checkpoint=path).run()
    path.write_bytes(path.read_bytes()[:-7])
    path.with_name("run.safetensors.previous").unlink()
    with pytest.raises(CheckpointError, match="cannot be used"):
        make(checkpoint=path).resume()


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-7]), lambda path: path.unlink()])
def test_a_damaged_or_lost_checkpoint_is_replaced_by_the_one_before_it_with_a_warning(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    whole = make(checkpoint=path).run()
    damage(path)
    trainer = make(checkpoint=path)
    with pytest.warns(CheckpointWarning, match=r"run\.safetensors' cannot be used: .*previous"):
        trainer.resume()
    assert trainer.state.step == 12
    assert_same(trainer.run(), whole)
    assert load_checkpoint(path).document["progress"]["step"] == 16


def test_a_whole_checkpoint_of_a_newer_version_is_not_replaced_by_the_one_before_it(tmp_path):
    path = tmp_path / "run.safetensors"
    make(checkpoint=path).run()
    path.write_bytes(path.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(CheckpointError, match="newer"):
        make(checkpoint=path).resume()


@pytest.mark.parametrize("name", ["plain", "warm_dropout", "direct"])
def test_at_a_constant_rate_a_finished_run_goes_on_to_more_epochs_as_if_it_had_not_ended(tmp_path, name):
    path = tmp_path / "run.safetensors"
    short = dataclasses.replace(CONFIGS[name], schedule="constant")
    longer = dataclasses.replace(short, epochs=7)
    make(short, checkpoint=path).run()
    assert_same(make(longer, checkpoint=path).resume().run(), make(longer).run())
    assert load_checkpoint(path).document["training"]["epochs"] == 7


@pytest.mark.parametrize("schedule", ["cosine", "step", "exponential"])
def test_a_schedule_that_depends_on_the_number_of_epochs_cannot_be_extended(tmp_path, schedule):
    path = tmp_path / "run.safetensors"
    short = dataclasses.replace(SMALL, schedule=schedule)
    make(short, checkpoint=path).run()
    with pytest.raises(CheckpointError, match=rf"(?s)epochs: stored 4, wanted 7.*{schedule}.*stretched"):
        make(dataclasses.replace(short, epochs=7), checkpoint=path).resume()


def test_a_run_is_not_shortened(tmp_path):
    path, constant = tmp_path / "run.safetensors", dataclasses.replace(SMALL, schedule="constant")
    make(constant, checkpoint=path).run()
    with pytest.raises(CheckpointError, match="epochs: stored 4, wanted 3"):
        make(dataclasses.replace(constant, epochs=3), checkpoint=path).resume()


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_stopped_run_keeps_its_last_step_and_goes_on_from_there(tmp_path, step):
    path = tmp_path / "run.safetensors"

    class Stop:
        def on_step(self, trainer, result):
            if trainer.state.step == step:
                trainer.stop()

        def on_epoch(self, trainer, record):
            pass

    config = CONFIGS["warm_dropout"]
    trainer = make(config, checkpoint=path, checkpoint_seconds=1e9, callbacks=[Stop()])
    assert trainer.run().steps == step
    assert not trainer.finished
    again = make(config, checkpoint=path).resume()
    assert again.state.step == step
    assert_same(again.run(), make(config).run())
    assert again.finished


def count_saves(monkeypatch):
    saved, real = [], saving.save_checkpoint

    def save(path, arrays, document):
        saved.append(document["progress"]["step"])
        real(path, arrays, document)

    monkeypatch.setattr(saving, "save_checkpoint", save)
    return saved


def test_short_epochs_are_not_all_saved_but_the_first_and_the_last_are(tmp_path, monkeypatch):
    saved = count_saves(monkeypatch)
    make(checkpoint=tmp_path / "run.safetensors", checkpoint_seconds=1e9).run()
    assert saved == [4, 16]


def test_an_epoch_at_which_a_callback_raises_is_saved(tmp_path, monkeypatch):
    saved = count_saves(monkeypatch)

    class Fail:
        def on_step(self, trainer, result):
            pass

        def on_epoch(self, trainer, record):
            if record["epoch"] == 3:
                raise StopAt.Stopped

    with pytest.raises(StopAt.Stopped):
        make(checkpoint=tmp_path / "run.safetensors", checkpoint_seconds=1e9, callbacks=[Fail()]).run()
    assert saved == [4, 12]


def test_a_history_of_a_hundred_thousand_epochs_is_saved_quickly_and_exactly(tmp_path):
    path = tmp_path / "run.safetensors"
    trainer = make(dataclasses.replace(SMALL, epochs=10**6), checkpoint=path)
    names = make().run().history[0]
    rng = np.random.default_rng(0)
    trainer.state.history = [
        {name: epoch if name == "epoch" else float(rng.normal()) for name in names} for epoch in range(10**5)
    ]
    trainer.save()
    assert path.with_suffix(".json").stat().st_size < 20_000
    again = make(trainer.config, checkpoint=path).resume()
    assert again.state.history == trainer.state.history
    assert type(again.state.history[7]["epoch"]) is int


def test_a_folder_that_vanishes_during_the_run_is_made_again(tmp_path):
    path = tmp_path / "folder" / "run.safetensors"

    class Vanish:
        def on_step(self, trainer, result):
            if trainer.state.step == 6:
                shutil.rmtree(path.parent)

        def on_epoch(self, trainer, record):
            pass

    result = make(checkpoint=path, callbacks=[Vanish()]).run()
    assert_same(make(checkpoint=path).resume().run(), result)


def test_a_folder_that_cannot_be_made_again_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"file/run\.safetensors' could not be written"):
        make(checkpoint=tmp_path / "file" / "run.safetensors").run()


@pytest.mark.parametrize("column", [np.zeros(3), np.zeros((4, 1))])
def test_a_history_whose_columns_do_not_fit_is_refused(tmp_path, column):
    path = tmp_path / "run.safetensors"
    make(checkpoint=path).run()
    loaded = load_checkpoint(path)
    save_checkpoint(path, {**loaded.arrays, "history/loss": column}, loaded.document, keep_previous=False)
    path.with_name("run.safetensors.previous").unlink()
    with pytest.raises(CheckpointError, match="history"):
        make(checkpoint=path).resume()


def test_best_parameters_are_those_of_the_lowest_validation_loss():
    seen = []

    class Keep:
        def on_step(self, trainer, result):
            pass

        def on_epoch(self, trainer, record):
            seen.append(trainer.state.parameters.copy())

    config = dataclasses.replace(SMALL, epochs=8, learning_rate=2.0, schedule="constant")
    trainer = make(config, callbacks=[Keep()])
    result = trainer.run()
    losses = [record["valid_loss"] for record in result.history]
    best = int(np.argmin(losses))
    assert best < 7, "the run should overshoot, or this test shows nothing"
    assert result.best_epoch == best + 1
    np.testing.assert_array_equal(result.parameters, seen[best])
    np.testing.assert_array_equal(result.last_parameters, seen[-1])
    metrics = evaluate(trainer.model, result.parameters, *trainer.validation, config.solver)
    assert metrics.loss == pytest.approx(losses[best], abs=1e-12)


def test_without_validation_the_last_parameters_are_the_result():
    result = make(valid=False).run()
    np.testing.assert_array_equal(result.parameters, result.last_parameters)
    assert "valid_loss" not in result.history[0]


def test_patience_stops_a_run_that_does_not_improve_and_a_resumed_one_stays_stopped(tmp_path):
    path = tmp_path / "run.safetensors"
    config = dataclasses.replace(SMALL, epochs=40, learning_rate=1.5, schedule="constant", patience=2)
    result = make(config, checkpoint=path).run()
    losses = [record["valid_loss"] for record in result.history]
    assert len(losses) < 40
    assert "2 epochs" in result.stopped
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    assert_same(make(config, checkpoint=path).resume().run(), result)


def test_warm_up_steps_are_direct_and_the_rest_implicit():
    solved = []

    class Watch:
        def on_step(self, trainer, result):
            solved.append(result.solution is not None)

        def on_epoch(self, trainer, record):
            pass

    make(dataclasses.replace(SMALL, warmup_steps=6), callbacks=[Watch()]).run()
    assert solved == [False] * 6 + [True] * 10
    solved.clear()
    make(dataclasses.replace(SMALL, mode="direct"), callbacks=[Watch()]).run()
    assert not any(solved)


def test_epochs_of_warm_up_do_not_compete_for_the_best_parameters():
    result = make(dataclasses.replace(SMALL, warmup_steps=8)).run()
    assert result.best_epoch >= 3


def test_a_run_of_warm_up_only_does_not_return_its_untrained_start():
    trainer = make(dataclasses.replace(SMALL, warmup_steps=100))
    start = trainer.state.parameters.copy()
    result = trainer.run()
    assert not np.array_equal(result.last_parameters, start)
    assert not np.array_equal(result.parameters, start)


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    trainer = make()
    orders = [np.concatenate([trainer.rows(step) for step in range(4 * epoch, 4 * epoch + 4)]) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(28))
    assert not np.array_equal(orders[0], orders[1])
    assert [len(trainer.rows(step)) for step in range(4)] == [8, 8, 8, 4]


def test_a_batch_larger_than_the_data_is_the_data():
    trainer = make(dataclasses.replace(SMALL, batch_size=1000, epochs=2))
    assert trainer.run().steps == 2


def test_training_learns_separable_classes():
    result = make(dataclasses.replace(SMALL, epochs=25)).run()
    assert result.history[-1]["accuracy"] > 0.95
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert max(record["valid_accuracy"] for record in result.history) > 0.9


def test_history_counts_solver_steps_and_unconverged_samples():
    with pytest.warns(ConvergenceWarning):
        record = make(dataclasses.replace(SMALL, solver=Picard(tol=1e-14, max_steps=2))).run().history[0]
    assert record["unconverged"] == 1
    assert record["solver_steps"] == 2
    assert record["max_residual"] >= record["residual"] > 0
    solved = make().run().history[0]
    assert solved["unconverged"] == 0
    assert solved["max_residual"] <= 1e-6


def test_warm_starts_take_fewer_solver_steps_than_zeros():
    config = dataclasses.replace(SMALL, solver=Picard(tol=1e-8), learning_rate=1e-4, epochs=3)
    cold = make(config).run().history[-1]["solver_steps"]
    warm = make(dataclasses.replace(config, start="warm")).run().history[-1]["solver_steps"]
    assert warm < 0.8 * cold


def test_sgd_without_clipping_moves_against_the_gradient_and_clipping_bounds_the_step():
    moves = []

    class Watch:
        def __init__(self, start):
            self.last = start

        def on_step(self, trainer, result):
            moves.append((trainer.state.parameters - self.last, result.gradient.copy()))
            self.last = trainer.state.parameters.copy()

        def on_epoch(self, trainer, record):
            pass

    config = dataclasses.replace(SMALL, optimizer="sgd", schedule="constant", learning_rate=0.1, epochs=1)
    start = make(config).state.parameters.copy()
    make(config, callbacks=[Watch(start)], initial_parameters=start).run()
    free = list(moves)
    moves.clear()
    make(dataclasses.replace(config, clip_norm=1e-3), callbacks=[Watch(start)], initial_parameters=start).run()
    step, gradient = free[0]
    cosine = step @ gradient / np.linalg.norm(step) / np.linalg.norm(gradient)
    assert cosine == pytest.approx(-1, abs=1e-3)
    for (bounded, _), (unbounded, _) in zip(moves, free, strict=True):
        assert np.linalg.norm(bounded) < np.linalg.norm(unbounded)
    assert np.linalg.norm(moves[0][0]) == pytest.approx(0.1 * 1e-3, rel=1e-6)


def test_the_first_gradient_norm_of_the_history_is_the_one_before_clipping():
    free = make(dataclasses.replace(SMALL, epochs=1, batch_size=28)).run().history[0]["gradient_norm"]
    clipped = make(dataclasses.replace(SMALL, epochs=1, batch_size=28, clip_norm=1e-3)).run().history[0]
    assert clipped["gradient_norm"] == pytest.approx(free, rel=1e-12)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch, broken):
    path = tmp_path / "run.safetensors"
    real = trainer_module.training_step

    def failing(*arguments, **options):
        result = real(*arguments, **options)
        if trainer.state.step < 6:
            return result
        if broken == "loss":
            return dataclasses.replace(result, loss=float("nan"))
        return dataclasses.replace(result, gradient=np.where(np.arange(len(result.gradient)) == 2, np.inf, 0))

    monkeypatch.setattr(trainer_module, "training_step", failing)
    for clip in (0.0, 0.25):
        trainer = make(dataclasses.replace(SMALL, clip_norm=clip), checkpoint=path)
        with pytest.raises(ConvergenceError, match="not finite at step 6"):
            trainer.run()
        assert load_checkpoint(path).document["progress"]["step"] == 4
        assert np.isfinite(trainer.state.parameters).all()


@pytest.mark.parametrize("rate", [1e160, 1e308])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_parameters_that_diverge_stop_the_run_by_the_name_of_the_learning_rate(rate, optimizer):
    config = dataclasses.replace(SMALL, learning_rate=rate, optimizer=optimizer)
    with pytest.raises(ConvergenceError, match=r"diverged at step 0, .*learning_rate \(1e\+"):
        make(config).run()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_ends_with_unsolved_samples_warns_once_with_their_share(epochs):
    config = dataclasses.replace(SMALL, epochs=epochs, solver=Picard(tol=1e-14, max_steps=2))
    with pytest.warns(
        ConvergenceWarning, match=r"100\.0% of the samples .*'picard'.*state_scale \(now 0.5\)"
    ) as caught:
        make(config).run()
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_huge_learning_rate_ends_in_a_clear_error_or_finite_parameters():
    config = dataclasses.replace(SMALL, learning_rate=1e200, optimizer="sgd", clip_norm=0.0)
    with np.errstate(all="ignore"), pytest.raises(ConvergenceError, match=r"learning_rate \(1e\+200\)"):
        make(config).run()


X, Y = blobs(6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:-1], r"y must have shape \(6,\).*\(5,\)"),
        (X, Y[:, None], r"y must have shape \(6,\)"),
        (X, np.where(Y == 2, 3, Y), r"y must hold integers 0\.\.2"),
        (X, np.where(Y == 2, -1, Y), r"y must hold integers 0\.\.2"),
        (X, Y.astype(float), r"y must hold integers"),
        (X, Y.astype(str), r"y must hold integers"),
        (X[:, :5], Y, r"\(samples, 6\)"),
        (X[0], Y, r"\(samples, 6\)"),
        (np.where(np.arange(6)[:, None] == 4, np.nan, X), Y, "sample 4"),
        (np.where(np.arange(6)[:, None] == 2, 0.0, X), Y, "sample 2 .*zero"),
        (X[:0], Y[:0], "no training samples"),
    ],
)
def test_training_data_that_cannot_be_used_are_errors_that_name_the_sample(x, y, message):
    with pytest.raises(InputError, match=message):
        Trainer(build_model("amplitude"), SMALL, x, y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, None, "y_valid"),
        (X, Y[:-1], "y_valid"),
        (X, Y + 1, "y_valid"),
        (X[:0], Y[:0], "valid"),
        (np.where(np.arange(6)[:, None] == 4, np.nan, X), Y, "sample 4"),
    ],
)
def test_validation_data_that_cannot_be_used_are_errors_at_once(x, y, message):
    with pytest.raises(InputError, match=message):
        Trainer(build_model("amplitude"), SMALL, X, Y, x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_parameters": np.zeros(5)}, r"shape \(30,\)"),
        ({"initial_parameters": np.full(30, np.nan)}, "finite"),
        ({"checkpoint_every": -1}, "checkpoint_every"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds"),
    ],
)
def test_trainer_options_that_cannot_be_used_are_errors(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "explicit", "mode .*'explicit'"),
        ("start", "cold", "start .*'cold'"),
        ("layers", 0, "layers .*0"),
        ("warmup_steps", -1, "warmup_steps .*-1"),
        ("epochs", 1.5, "epochs .*1.5"),
        ("batch_size", True, "batch_size .*True"),
        ("seed", -1, "seed .*-1"),
        ("learning_rate", 0, "learning_rate .*0"),
        ("learning_rate", float("nan"), "learning_rate .*nan"),
        ("dropout", 1.0, "dropout .*1.0"),
        ("clip_norm", -0.1, "clip_norm .*-0.1"),
        ("solver", "newton", "solver .*'newton'"),
        ("backward", "exact", "backward .*'exact'"),
        ("backward", Backward("shine"), "shine.*newton"),
        ("optimizer", "adamw", "adamw"),
        ("schedule", "linear", "linear"),
    ],
)
def test_configurations_out_of_range_name_field_and_value(field, value, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **{field: value})


@pytest.mark.parametrize("option", [{"weight_decay": 0.1, "optimizer": "sgd"}, {"weight_decay": 0.1}])
def test_weight_decay_shrinks_the_readout_matrix_only(option):
    config = dataclasses.replace(SMALL, epochs=1, learning_rate=1e-6, **option)
    start = make(config).state.parameters.copy()
    plain = make(dataclasses.replace(config, weight_decay=0.0), initial_parameters=start).run().last_parameters
    decayed = make(config, initial_parameters=start).run().last_parameters
    model = make(config).model
    changed = np.abs(decayed - plain) > 1e-12
    assert not changed[: model.num_weights].any()
    assert not changed[-model.num_classes :].any()
    assert changed[model.num_weights : -model.num_classes].any()


@pytest.mark.parametrize("solver", [Newton(), Broyden(), Anderson(), Picard(), ScipyRoot()], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_every_solver_trains_every_encoder_to_the_same_place(kind, solver):
    config = dataclasses.replace(SMALL, epochs=2, solver=dataclasses.replace(solver, tol=1e-9))
    model = build_model(kind, state_scale=0.2)
    reference = make(dataclasses.replace(config, solver=Newton(tol=1e-11)), model=model).run()
    np.testing.assert_allclose(make(config, model=model).run().last_parameters, reference.last_parameters, atol=1e-5)
