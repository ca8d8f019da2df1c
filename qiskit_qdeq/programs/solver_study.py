"""Which solver and which start pay, what do tolerance and backward mode change? Every combination, exact and from shots.

solver × start × tolerance × backward mode, two encodings, two state scales: steps, circuits, shots, failures, error of
z* and of the gradient, test accuracy after training; contraction of the maps, and several equilibria.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import EXECUTION_MODES, from_mapping, given, option, parser
from qiskit_qdeq.programs.running import addressed, check_device, is_service
from qiskit_qdeq.programs.study import DataStudyArguments, Publish, check_at_least, data_folder, studying
from qiskit_qdeq.studies.solving.figures import figures
from qiskit_qdeq.studies.solving.places import Place
from qiskit_qdeq.studies.solving.plan import LEFT_OUT, QUICK, Sizes, exact_tasks, perform, shot_tasks
from qiskit_qdeq.studies.solving.report import markdown
from qiskit_qdeq.studies.solving.rows import compact, rows_of
from qiskit_qdeq.studies.solving.shot_tasks import ShotPlace
from qiskit_qdeq.studies.tasks import Mapper, Task


@dataclass(frozen=True)
class SolverArguments(DataStudyArguments):
    """Options of `solvers`."""

    limit_train: int | None = option(None, "keep at most this many training samples", type=int)
    epochs: int | None = option(None, "of exact trainings; default 8, 2 with --quick", type=int)
    seeds: int | None = option(None, "runs of everything, seeds 0, 1, ...; default 3, 2 with --quick", type=int)
    backend: str = option("aer", "where the shot part runs: aer, fake:NAME, ibm:NAME or statevector")
    execution_mode: str = option("job", "job, batch or session, of --backend", choices=EXECUTION_MODES)
    output: str = option("solver-study", "folder of the study; the same folder again goes on where it stopped")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Publish = print,
) -> dict[str, Any]:
    """Compute all cells, write tables and figures, and return what results.json holds.

    Args:
        backend: where the shot part runs, instead of the argument of that name: a text, or a backend object, whose tasks are
            then done in this process.
        arguments: fields of `SolverArguments`.
        mode: "job", "batch" or "session", instead of the argument `execution_mode`, or a session open on the backend object.
        mapper: spreads the tasks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given the tables.

    Raises:
        InputError: for arguments, data or a backend that cannot be used.
        StudyError: if tasks failed; the others are kept.
    """
    values, objects = addressed(backend, arguments, mode)
    options = from_mapping(SolverArguments, values)
    check_at_least(options, 1, "epochs", "seeds", "limit_train", "num_qubits")
    device = ShotPlace(objects.backend or options.backend, options.execution_mode, objects.session)
    if device.backend == "exact":
        raise InputError("backend 'exact' measures nothing, and the shot part is about measuring: use 'aer'")
    device.execution(shots=1, seed=0)  # refuses here what no task could use
    sizes = _sizes(options)
    data: dict[str, Any] = {
        "data": options.data,
        "num_qubits": options.num_qubits,
        "classes": None if options.classes is None else list(options.classes),
        "limit_train": options.limit_train,
    }
    exact, shots = exact_tasks(data, sizes), shot_tasks(data, sizes, device)
    place = data_folder(options.data_dir, [options.data])
    _check(options, exact, place, device)
    with studying("solvers", options, mapper, publish) as study:
        results = study.run(exact, partial(perform, data_dir=place, device=ShotPlace()), "exact")
        with study.journals(at_service=is_service(options.backend, objects)) as journals:
            work = partial(perform, data_dir=place, device=replace(device, journals=journals))
            results += study.run(shots, work, "shots", mapper=None if device.is_local else map)
        rows = rows_of([*exact, *shots], results)
        found: dict[str, Any] = {
            "settings": {**data, **asdict(sizes), "backend": device.description},
            **{part: compact(some) for part, some in rows.items() if part != "refused"},
            "refused": list(rows["refused"]),
            "left_out": [dict(zip(("what", "reason"), line, strict=True)) for line in LEFT_OUT],
        }
        return study.write(found, markdown(rows, sizes.seeds), lambda: figures(rows))


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq solvers`: the exit code."""
    options = parser(
        SolverArguments, "qiskit_qdeq solvers", "Solver x start x tolerance x backward mode, exact and from shots."
    )
    main(arguments=given(options, SolverArguments, words))
    return 0


def _check(options: SolverArguments, tasks: Sequence[Task], data_dir: str | None, device: ShotPlace) -> None:
    """Refuse data and a device that no task could use."""
    one_each = {task.arguments["train"]["encoding"]: task.arguments["train"] for task in tasks}
    for train in one_each.values():
        if not Place.of(train, data_dir).model.is_computable:
            raise InputError(f"num_qubits={options.num_qubits} is too large to be computed: ask for fewer")
    if isinstance(device.backend, str):
        if device.backend == "given":
            raise InputError("backend 'given' is for a backend object: main(backend, arguments)")
        check_device(device.backend, options.num_qubits)


def _sizes(options: SolverArguments) -> Sizes:
    sizes = QUICK if options.quick else Sizes()
    given = {name: getattr(options, name) for name in ("epochs", "seeds") if getattr(options, name) is not None}
    return replace(sizes, **given)
