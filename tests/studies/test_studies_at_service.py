"""What a study or an evaluation has paid for at a service is fetched when it is begun again."""

from __future__ import annotations

import pytest
from loopback import LoopbackService

from qiskit_qdeq.programs import evaluate, train
from qiskit_qdeq.programs.study import Study, StudyArguments
from qiskit_qdeq.studies.solving import shot_tasks
from qiskit_qdeq.studies.solving.cells import Cell
from qiskit_qdeq.studies.solving.shot_tasks import ShotPlace, shots_task

pytestmark = pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
TRAIN = {"encoding": "amplitude", "num_qubits": 4, "epochs": 1, "limit": 24, "seed": 0, "state_scale": 0.5}


@pytest.fixture
def service(monkeypatch):
    with LoopbackService(engine="random") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_an_evaluation_whose_results_cannot_be_written_is_not_paid_twice(service, tmp_path):
    train.main(None, {"epochs": 1, "limit": 24, "quiet": True, "no_plots": True, "output": tmp_path / "run"})
    asked = {"directory": tmp_path / "run", "backend": "ibm:ibm_loopback", "shots": 50, "limit": 4, "quiet": True}
    with pytest.raises(OSError, match="directory"):
        evaluate.main(None, {**asked, "json": str(tmp_path)})
    jobs = len(service.jobs)
    assert jobs > 0
    evaluate.main(None, {**asked, "json": str(tmp_path / "metrics.json")})
    assert len(service.jobs) == jobs
    # a whole one leaves nothing to fetch
    evaluate.main(None, asked)
    assert len(service.jobs) == 2 * jobs


def test_a_task_of_the_solver_study_fetches_what_it_has_paid_for(service, tmp_path, monkeypatch):
    monkeypatch.setattr(shot_tasks, "shot_cells", lambda tols: [Cell("probe"), Cell("broyden")])
    arguments = {"train": TRAIN, "epochs": 1, "samples": 2, "shots": 50, "tols": [1e-6]}
    study = Study("solvers", tmp_path, map, StudyArguments(quiet=True), print)

    asked = []

    def fails_at_the_second(*given):
        asked.append(given)
        if len(asked) == 2:
            raise RuntimeError("power is off")
        return {}

    monkeypatch.setattr(shot_tasks, "errors_of", fails_at_the_second)

    def work():
        with study.journals(at_service=True) as journals:
            shots_task(arguments, None, ShotPlace("ibm:ibm_loopback", journals=journals))

    with pytest.raises(RuntimeError, match="power"):
        work()
    paid = len(service.jobs)
    work()
    assert paid > 1
    assert [job.fetched for job in service.jobs] == [2] * paid + [1] * (len(service.jobs) - paid)
    assert not (tmp_path / "jobs").exists()
