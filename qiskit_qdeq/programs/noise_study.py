"""Does an equilibrium model stand noise better than a deep circuit of equal accuracy?

Equilibrium, explicit layers and circuits whose layers are stacked on the device are trained, without noise and in it, and
asked under noises of rising strength and of fake devices: exactly, extrapolated to zero noise, and from shots, mitigated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.devices import device_identity, fake_backend
from qiskit_qdeq.programs.arguments import (
    EXECUTION_MODES,
    comma_separated,
    from_mapping,
    given,
    option,
    parser,
)
from qiskit_qdeq.programs.running import Device, addressed, check_device, is_service
from qiskit_qdeq.programs.study import DataStudyArguments, Study, check_at_least, data_folder, studying
from qiskit_qdeq.studies.noise.figures import figures
from qiskit_qdeq.studies.noise.models import MODELS, build, check_model
from qiskit_qdeq.studies.noise.noises import NONE, Noise
from qiskit_qdeq.studies.noise.report import markdown
from qiskit_qdeq.studies.noise.tables import Row, exact_rows, measured_rows, standing_rows
from qiskit_qdeq.studies.noise.tasks import exact_arguments, exact_task, measured_arguments, measured_task
from qiskit_qdeq.studies.tasks import Mapper, Task
from qiskit_qdeq.studies.training_tasks import described

STRENGTHS = {
    "depolarizing": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    "damping": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    "readout": (0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
}
_QUICK_STRENGTHS = {"depolarizing": (0.005, 0.02, 0.1), "damping": (0.002, 0.01, 0.05), "readout": (0.05, 0.2)}
_QUICK_MODELS = ("implicit", "direct-1", "stacked-5")
_LEVELS = (0, 1, 2)
#: The paper's n = 4; beyond 8 qubits noise is not computed exactly.
_MOST_QUBITS = 8
_EPOCHS, _QUICK_EPOCHS = 60, 20
# of image sets, which have tens of thousands of samples
_IMAGES, _IMAGE_EPOCHS = {"limit": 1_000, "limit_train": 2_048}, 30


@dataclass(frozen=True)
class NoiseArguments(DataStudyArguments):
    """Options of `noise`."""

    preset: str = option("default", "models and training recipe", choices=("default", "paper"))
    encodings: tuple[str, ...] = option(("amplitude",), "amplitude, angle, comma-separated", type=comma_separated)
    models: tuple[str, ...] | None = option(
        None,
        f"implicit, direct-L, stacked-L, stacked-L-free, comma-separated; default {','.join(MODELS)}",
        type=comma_separated,
    )
    trained_in: tuple[str, ...] | None = option(
        None,
        "noises in which models are trained as well as without: depolarizing:RATE, damping:RATE, readout:RATE, fake:NAME, "
        "comma-separated; default depolarizing:0.02,damping:0.01,fake:manila",
        type=comma_separated,
    )
    devices: tuple[str, ...] | None = option(
        None, "fake devices, comma-separated; default torino,sherbrooke,manila,yorktown", type=comma_separated
    )
    epochs: int | None = option(None, "of every training; default 60, images 30", type=int)
    limit: int | None = option(None, "samples in each part; default all digits, 1,000 images", type=int)
    limit_train: int | None = option(None, "training samples, instead of --limit; default 2,048 images", type=int)
    seeds: int | None = option(None, "runs per model, seeds 0, 1, ...; default 3, with --quick 1", type=int)
    measured_models: tuple[str, ...] | None = option(
        None,
        "models asked from shots too, trained without noise; default implicit,direct-1,stacked-2,stacked-5",
        type=comma_separated,
    )
    measured_devices: tuple[str, ...] | None = option(
        None, "fake devices of the part from shots; default torino,manila", type=comma_separated
    )
    samples: int | None = option(None, "test samples asked from shots; default 8, with --quick 2", type=int)
    shots: int | None = option(None, "per circuit; default 4096, with --quick 1024", type=int)
    no_measured: bool = option(False, "leave out the part from shots, half of the time")
    backend: str | None = option(
        None, "ask the models trained without noise, seed 0, on fake:NAME or ibm:NAME as well, from shots"
    )
    execution_mode: str | None = option(None, "jobs to that backend: default job", choices=EXECUTION_MODES)
    resilience_level: int | None = option(
        None, "error mitigation on that backend by the Runtime estimator, 0 to 2; default 1", type=int
    )
    quick: bool = option(
        False, "1 seed, 20 epochs, three models, few strengths, one noise to train in, one device from shots: 2 minutes"
    )
    output: str = option("noise-study", "folder of the study; the same folder again goes on where it stopped")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, ask under every noise, write tables and figures, and return what results.json holds.

    Args:
        backend: None: all is computed or simulated here. "fake:NAME", "ibm:NAME" or a BackendV2: the models trained without
            noise with seed 0 are asked there too, in this process, from shots.
        arguments: fields of `NoiseArguments`.
        mode: of the jobs to that backend: "job", "batch" or "session", or an open `Session` or `Batch` on the object.
        mapper: spreads the tasks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given the tables.

    Returns:
        `exact`, `standing`, `measured` and `backend`: rows, see `studies.noise.tables`; `seeds`, `data`, `arguments`.

    Raises:
        InputError: for arguments or data that cannot be used.
        StudyError: if tasks failed; the others are kept.
    """
    values, device = addressed(backend, arguments, mode)
    options = from_mapping(NoiseArguments, values)
    plan = _Plan(options, device)
    with studying("noise", options, mapper, publish) as study:
        places: dict[str, Any] = {"folder": str(study.folder), "data_dir": plan.data_dir}
        exact, measured = plan.exact(), plan.measured()
        exact_results = study.run(exact, partial(exact_task, **places), "trained")
        measured_results = study.run(measured, partial(measured_task, **places), "from shots") if measured else []
        rows = exact_rows(_paired(exact, exact_results))
        results = {
            "exact": rows,
            "standing": standing_rows(rows),
            "measured": measured_rows(_paired(measured, measured_results)),
            "backend": _on_backend(study, plan, device, places),
            "data": options.data,
            "num_qubits": options.num_qubits,
            "seeds": plan.seeds,
            "test_samples": exact_results[0]["test_samples"],
            "arguments": {**plan.shared, "noises": list(plan.noises), "shots": plan.shots, "samples": plan.samples},
        }
        return study.write(results, markdown(results), lambda: figures(results))


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq noise`: the exit code."""
    options = parser(NoiseArguments, "qiskit_qdeq noise", "Equilibrium models and deep circuits under noise.")
    main(arguments=given(options, NoiseArguments, words))
    return 0


class _Plan:
    """What the options ask for: checked, and sizes as --quick has them.

    Raises:
        InputError: naming the option.
    """

    def __init__(self, options: NoiseArguments, device: Device) -> None:
        check_at_least(options, 1, "epochs", "limit", "limit_train", "seeds", "samples", "shots", "num_qubits")
        if options.num_qubits > _MOST_QUBITS:
            raise InputError(f"num_qubits must be at most {_MOST_QUBITS}, got {options.num_qubits}")
        quick = options.quick
        self.options = options
        self.data_dir = data_folder(options.data_dir, [options.data])
        self.models = options.models or (_QUICK_MODELS if quick else MODELS)
        self.trained_in = () if options.trained_in == (NONE,) else options.trained_in
        if self.trained_in is None:
            self.trained_in = ("fake:manila",) if quick else ("depolarizing:0.02", "damping:0.01", "fake:manila")
        devices = options.devices or (
            ("torino", "sherbrooke", "manila") if quick else ("torino", "sherbrooke", "manila", "yorktown")
        )
        self.seeds = options.seeds or (1 if quick else 3)
        self.samples = options.samples or (2 if quick else 8)
        self.level = 1 if options.resilience_level is None else options.resilience_level
        self.shots = options.shots or (1_024 if quick else 4_096)
        self.measured_models = options.measured_models
        if self.measured_models is None:
            usual = ("implicit", "stacked-5") if quick else ("implicit", "direct-1", "stacked-2", "stacked-5")
            self.measured_models = tuple(model for model in usual if model in self.models)
        self.measured_devices = options.measured_devices or (("manila",) if quick else ("torino", "manila"))
        if options.no_measured:
            self.measured_models = self.measured_devices = ()
        strengths = _QUICK_STRENGTHS if quick else STRENGTHS
        words = [f"{kind}:{strength:g}" for kind, rates in strengths.items() for strength in rates]
        words += [f"fake:{name}" for name in devices]
        # what models are trained in they are asked in
        self.noises = tuple(dict.fromkeys([*words, *self.trained_in]))
        self.shared = {
            "data": options.data,
            "num_qubits": options.num_qubits,
            "classes": None if options.classes is None else list(options.classes),
            "preset": options.preset,
            "epochs": options.epochs or self._epochs(),
            **self._limits(),
        }
        self._check(device)

    def exact(self) -> list[Task]:
        """A task per encoding, model, seed and noise to train in."""
        return [
            Task(
                f"{encoding}/{model}/{trained_in}/seed-{seed}",
                exact_arguments(model, trained_in, self._train(encoding, seed), self.noises),
            )
            for encoding in self.options.encodings
            for model in self.models
            for trained_in in (NONE, *(self.trained_in or ()))
            for seed in range(self.seeds)
        ]

    def measured(self) -> list[Task]:
        """A task per encoding, model, seed, fake device and resilience level; the longest first."""
        return [
            self._asked(encoding, model, seed, f"fake:{name}", name, resilience_level=level)
            for level in reversed(_LEVELS)
            for encoding in self.options.encodings
            for model in self.measured_models or ()
            for name in self.measured_devices
            for seed in range(self.seeds)
        ]

    def on_backend(self, backend: str, name: str, **identity: str) -> list[Task]:
        """A task per encoding and model, seed 0."""
        options = self.options
        execution = {"mode": options.execution_mode or "job", "resilience_level": self.level}
        tasks = [
            self._asked(encoding, model, 0, backend, name, **execution)
            for encoding in options.encodings
            for model in self.models
        ]
        return [Task(task.name, {**task.arguments, **identity}) for task in tasks]

    def _asked(self, encoding: str, model: str, seed: int, backend: str, name: str, **execution: Any) -> Task:
        arguments = measured_arguments(
            model, self._train(encoding, seed), self.samples, name, backend=backend, shots=self.shots, **execution
        )
        level = execution["resilience_level"]
        return Task(f"{encoding}/{model}/seed-{seed}/shots/{backend.partition(':')[0]}-{name}/{level}", arguments)

    def _train(self, encoding: str, seed: int) -> dict[str, Any]:
        return {**self.shared, "encoding": encoding, "seed": seed}

    def _epochs(self) -> int:
        if self.options.quick:
            return _QUICK_EPOCHS
        return _EPOCHS if self.options.data == "digits" else _IMAGE_EPOCHS

    def _limits(self) -> dict[str, int | None]:
        usual: dict[str, int | None] = {"limit": None, "limit_train": None}
        if self.options.data != "digits":
            usual = dict(_IMAGES)
        if self.options.limit is not None:
            usual = {"limit": self.options.limit, "limit_train": None}
        if self.options.limit_train is not None:
            usual["limit_train"] = self.options.limit_train
        return usual

    def _check(self, device: Device) -> None:
        """Refuse before hours are spent what would be refused after them."""
        options = self.options
        self._check_words()
        for model in (*self.models, *(self.measured_models or ())):
            check_model(model)
        for word in (*self.noises, *(f"fake:{name}" for name in self.measured_devices)):
            check_device(word, options.num_qubits)
        if NONE in self.noises:
            raise InputError("trained_in: models are trained without noise anyway, leave none out")
        if options.backend is not None:
            if options.backend.partition(":")[0] not in ("fake", "ibm", "given"):
                raise InputError(f"backend must be fake:NAME, ibm:NAME or a backend object, got {options.backend!r}")
            Execution(options.backend, mode=options.execution_mode or "job", resilience_level=self.level)
            check_device(options.backend, options.num_qubits)
            if options.backend == "given" and device.backend is None:
                raise InputError("backend 'given' is for a backend object: main(backend, arguments)")
        else:
            self._refuse_ineffective("without a backend", "execution_mode", "resilience_level")
        if options.no_measured:
            self._refuse_ineffective("with no_measured", "measured_models", "measured_devices")
        if options.no_measured and options.backend is None:
            self._refuse_ineffective("with no_measured and without a backend", "samples", "shots")
        for encoding in options.encodings:
            train = self._train(encoding, 0)
            _, split, _ = described(train, self.data_dir)
            build(self.models[0], train, split)

    def _check_words(self) -> None:
        """Refuse lists that name one thing twice, in whatever words, or nothing where there must be something."""
        options = self.options
        for name in ("encodings", "models", "devices", "measured_devices"):
            if getattr(options, name) == ():
                raise InputError(f"{name} must name at least one, or be left out")
        lists: dict[str, list[Any]] = {
            "encodings": list(options.encodings),
            "models": list(self.models),
            "measured_models": list(self.measured_models or ()),
            "trained_in": [_same(word) for word in self.trained_in or ()],
            "devices": [_same(f"fake:{name}") for name in options.devices or ()],
            "measured_devices": [_same(f"fake:{name}") for name in self.measured_devices],
        }
        for name, found in lists.items():
            if len(set(found)) < len(found):
                raise InputError(f"{name} must differ from each other, got {','.join(getattr(options, name))}")
        spellings: dict[Noise, str] = {}
        for word in self.noises:
            if (other := spellings.setdefault(_same(word), word)) != word:
                raise InputError(f"{other} and {word} are the same noise: write it in one way")

    def _refuse_ineffective(self, when: str, *names: str) -> None:
        for name in names:
            if getattr(self.options, name) is not None:
                raise InputError(f"{name} has no effect {when}: leave it out")


def _same(word: str) -> Noise:
    """The noise that a word names, its device by the name that it has itself."""
    noise = Noise.parse(word)
    return noise if noise.device is None else Noise("fake", device=str(fake_backend(noise.device).name))


def _on_backend(study: Study, plan: _Plan, device: Device, places: Mapping[str, Any]) -> list[Row]:
    """The models on the backend given, one after the other in this process, which alone holds it."""
    backend = plan.options.backend
    if backend is None:
        return []
    name, identity = backend.partition(":")[2], {}
    if device.backend is not None:
        name, identity = str(device.backend.name), {"identity": device_identity(device.backend)}
    tasks = plan.on_backend(backend, name, **identity)
    with study.journals(at_service=is_service(backend, device)) as journals:
        work = partial(measured_task, **places, backend=device.backend, session=device.session, journals=journals)
        return measured_rows(_paired(tasks, study.run(tasks, work, name, mapper=map)))


def _paired(tasks: Sequence[Task], results: Sequence[dict[str, Any]]) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    return [(task.arguments, result) for task, result in zip(tasks, results, strict=True)]
