"""Which rows the paper's tables have, and the training run behind each.

IMPLICIT solves for the equilibrium; WARM-UP trains the first half of the steps through two explicit layers; DIRECT-L applies
the circuit L times. Beside them the default preset of this package on the same circuit, the baselines the paper compares
with, and classical controls on the very same pooled pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.studies.controls import CONTROLS, SVM_SAMPLES
from qiskit_qdeq.studies.tasks import Task

#: The authors' minibatch.
BATCH = 256
#: Explicit layers of a warm-up, as in the authors' runs on MNIST-4.
WARMUP_LAYERS = 2
DIRECT_LAYERS = {"paper": (1, 2, 5, 10), "default": (1, 5)}
GROUPS = ("paper", "default", "ablation", "baseline", "control")


@dataclass(frozen=True)
class Table:
    """One data set at one size.

    Attributes:
        title: for people.
        data, num_qubits, classes: see `load_split`; classes None is the loader's choice.
        train_samples: of the whole training part.
        epochs: of a run with the authors' recipe.
        default_epochs: of a run with the default preset.
        options: more arguments of every training run.
        encodings: of the paper's rows.
        baselines: names of `run_baseline`, each for all encodings.
        ablation: whether the steps from the authors' model to the default preset are rows, too.
        default_batch: the minibatch of the default preset.
    """

    title: str
    data: str
    num_qubits: int
    classes: tuple[int, ...] | None
    train_samples: int
    epochs: int
    default_epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    encodings: tuple[str, ...] = ("amplitude",)
    baselines: tuple[str, ...] = ()
    ablation: bool = False
    default_batch: int = BATCH


_TEN: Any = {"num_qubits": 10, "classes": tuple(range(10)), "epochs": 100, "default_epochs": 25}
_SINGLE = {"dtype": "float32"}
_BOTH = ("amplitude", "angle")
_ALL = ("wang", "pca", "vae")
TABLES = {
    "digits-4": Table("digits 0, 3, 6, 9", "digits", 4, None, 434, 100, 100, {}, _BOTH, ("wang", "pca"), True, 64),
    "mnist-4": Table("MNIST-4", "mnist", 4, None, 19_136, 100, 100, {}, _BOTH, _ALL, True),
    "mnist-10": Table("MNIST-10", "mnist", train_samples=48_000, options=_SINGLE, **_TEN),
    "fashion-10": Table("FashionMNIST-10", "fashion_mnist", train_samples=48_000, options=_SINGLE, **_TEN),
    "cifar-10": Table("CIFAR-10", "cifar10", train_samples=40_000, options=_SINGLE, ablation=True, **_TEN),
}

#: From the authors' model to the default preset, one change after the other, at the same number of epochs.
_ABLATION: tuple[tuple[str, dict[str, Any]], ...] = (
    ("authors' recipe", {}),
    ("Newton to 1e-6, exact adjoint", {"solver": "newton", "tol": 1e-6, "max_steps": 50, "backward": "exact"}),
    ("no Jacobian penalty", {"regularization": "none"}),
    ("identity instead of relu", {"activation": "identity"}),
    ("readout zz", {"readout": "zz"}),
    ("readout zzz", {"readout": "zzz"}),
    ("readout zzzz", {"readout": "zzzz"}),
    (
        "rate 0.1, cosine, clip 1, no dropout",
        {"learning_rate": 0.1, "schedule": "cosine", "clip_norm": 1.0, "dropout": 0.0},
    ),
    ("minibatches of 64", {"batch_size": 64}),
    ("own normalization", {"normalization": "own"}),
    ("half the state fed back", {"state_scale": 0.5}),
    # the authors give the linear layer N copies of each value; nothing else is left of their preset by then
    ("each value once", {"preset": "default"}),
)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        table: key of `TABLES`.
        group: "paper", "default", "ablation", "baseline" or "control".
        name: as in the paper, e.g. "IMPLICIT".
        encoding: of the circuit; "" for classical controls.
        kind: which function does it: "train", "baseline" or "control".
        arguments: of that function, without its seed.
    """

    table: str
    group: str
    name: str
    encoding: str
    kind: str
    arguments: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Unique in a study."""
        return "/".join(part for part in (self.table, self.group, self.encoding, self.name) if part)

    @property
    def published_key(self) -> str:
        """Where `published.json` has this row's figures."""
        return f"{self.encoding} {self.name}".strip()

    @property
    def is_implicit(self) -> bool:
        """Whether the trained model solves for an equilibrium."""
        return self.kind == "train" and self.arguments["mode"] == "implicit"

    def seeds(self, count: int) -> range:
        """Those of `count` that make a difference: logistic regression has no random start, nor has a kernel machine that
        gets all samples."""
        all_samples = _samples(TABLES[self.table], self.arguments["limit"]) <= SVM_SAMPLES
        return range(1 if self.name == "logistic" or (self.name == "svm" and all_samples) else count)

    def task(self, seed: int) -> Task:
        """The run of one seed."""
        return Task(f"{self.label}/seed-{seed}", {"kind": self.kind, **self.arguments, "seed": seed})

    def profile(self) -> Task | None:
        """The measurement of time and memory; None where nothing is trained by this package."""
        if self.kind != "train":
            return None
        return Task(f"{self.label}/profile", {**self.arguments, "kind": "profile", "seed": 0})


@dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        epochs: instead of each table's own; None for those.
        limit: samples in each part; None for all.
        groups: of rows.
        encodings: of rows.
    """

    epochs: int | None = None
    limit: int | None = None
    groups: Sequence[str] = GROUPS
    encodings: Sequence[str] = _BOTH


QUICK = Scale(epochs=4, limit=2_000)


def rows_of(name: str, scale: Scale, available: Sequence[str]) -> list[Row]:
    """The rows of a table.

    Args:
        name: key of `TABLES`.
        scale: how large.
        available: baselines that can be run here.

    Raises:
        InputError: for an unknown table.
    """
    if name not in TABLES:
        raise InputError(f"tables must be among {list(TABLES)}, got {name!r}")
    table = TABLES[name]
    rows = [*_trained(name, table, scale), *_baselines(name, table, scale, available), *_controls(name, table, scale)]
    return [row for row in rows if row.group in scale.groups and row.encoding in ("", *scale.encodings)]


def _trained(name: str, table: Table, scale: Scale) -> Iterator[Row]:
    paper, default = scale.epochs or table.epochs, scale.epochs or table.default_epochs
    samples = _samples(table, scale.limit)

    def row(group: str, label: str, encoding: str, epochs: int, batch: int, **more: Any) -> Row:
        arguments = {
            **_data(table, scale),
            **table.options,
            "preset": "default" if group == "default" else "paper",
            "encoding": encoding,
            "epochs": epochs,
            "batch_size": batch,
            "mode": "implicit",
            **more,
        }
        return Row(name, group, label, encoding, "train", arguments)

    for encoding in table.encodings:
        for group, epochs, batch in (("paper", paper, BATCH), ("default", default, table.default_batch)):
            if group == "default" and encoding != "amplitude":
                continue
            warmup = max(1, epochs * -(-samples // batch) // 2)
            yield row(group, "IMPLICIT", encoding, epochs, batch)
            yield row(group, "IMPLICIT+WARMUP", encoding, epochs, batch, warmup=warmup, layers=WARMUP_LAYERS)
            penalty = {"regularization": "none"} if group == "paper" else {}
            for layers in DIRECT_LAYERS[group]:
                yield row(group, f"DIRECT-{layers}", encoding, epochs, batch, mode="direct", layers=layers, **penalty)
    if not table.ablation:
        return
    changes: dict[str, Any] = {}
    for label, change in _ABLATION:
        # four qubits have one product of four Z, and MNIST's normalization is the paper's
        if (
            (table.num_qubits == 4 and label == "readout zzzz")
            or (table.data in ("digits", "mnist") and "normalization" in change)
            or change.get("batch_size", table.default_batch) != table.default_batch
        ):
            continue
        changes |= change
        yield row("ablation", label, "amplitude", default, BATCH, **changes)


def _baselines(name: str, table: Table, scale: Scale, available: Sequence[str]) -> Iterator[Row]:
    for encoding in table.encodings:
        for baseline in table.baselines:
            if baseline in available:
                arguments = {**_data(table, scale), "encoding": encoding, "epochs": scale.epochs or table.epochs}
                if baseline != "wang":
                    # learnt features as large as pixels: standardized ones lose their common sign, and some 20 points
                    arguments["scaling"] = "range"
                yield Row(name, "baseline", baseline, encoding, "baseline", {"name": baseline, **arguments})


def _controls(name: str, table: Table, scale: Scale) -> Iterator[Row]:
    for control in CONTROLS:
        yield Row(name, "control", control, "", "control", {"name": control, **_data(table, scale)})


def _data(table: Table, scale: Scale) -> dict[str, Any]:
    chosen = {"data": table.data, "num_qubits": table.num_qubits, "limit": scale.limit}
    return chosen | {"classes": None if table.classes is None else list(table.classes)}


def _samples(table: Table, limit: int | None) -> int:
    """Training samples of a run."""
    return min(table.train_samples, limit or table.train_samples)
