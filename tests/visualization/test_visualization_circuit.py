from __future__ import annotations

from collections import Counter

import matplotlib.pyplot as plt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.utils.optionals import HAS_PYLATEX

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitTemplate,
    hardware_efficient_ansatz,
    paper_ansatz,
)
from qiskit_qdeq.exceptions import InputError, MissingExtraError
from qiskit_qdeq.visualization import plot_circuit

drawer = pytest.mark.skipif(not HAS_PYLATEX, reason="pylatexenc is not installed")


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def small():
    """Weights whose own names are those of the other's place, and a global phase."""
    first, second = Parameter("θ1"), Parameter("θ0")
    ansatz = QuantumCircuit(2, global_phase=second)
    ansatz.ry(first, 0)
    ansatz.rx(second, 1)
    return CircuitTemplate(AngleEncoder("yz", [0, 1], 2), ansatz, weights=[first, second])


@drawer
def test_every_gate_of_the_template_is_drawn_with_the_index_of_its_parameter(tmp_path):
    template = CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4))
    figure = plot_circuit(template, part="template")
    shown = texts(figure)
    assert {name for name in shown if name[0] in "θφ"} == {
        *(f"φ{i}" for i in range(15)),
        *(f"θ{i}" for i in range(template.num_weights)),
    }
    counts = template.circuit.count_ops()
    assert shown.count("$\\mathrm{R_Y}$") == counts["ry"]
    assert shown.count("$\\mathrm{R_Z}$") == counts["rz"]
    assert figure.get_figwidth() == 7
    figure.savefig(tmp_path / "circuit.png", dpi=40)


@drawer
def test_the_encoder_is_one_box_unless_asked_for():
    template = CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4))
    boxed = texts(plot_circuit(template))
    assert boxed.count("S(φ)") == 1
    assert not any(name.startswith("φ") for name in boxed)
    ansatz, encoder = (texts(plot_circuit(template, part=part)) for part in ("ansatz", "encoder"))
    assert sum(name.startswith("θ") for name in ansatz) == template.num_weights
    assert not any(name.startswith(("φ", "S(")) for name in ansatz)
    assert sum(name.startswith("φ") for name in encoder) == template.num_angles


@drawer
def test_parameters_are_numbered_by_the_order_of_the_weights():
    template = small()
    shown = texts(plot_circuit(template, part="ansatz"))
    assert shown[shown.index("$\\mathrm{R_Y}$") - 1 : shown.index("$\\mathrm{R_Y}$") + 2].count("θ0") == 1
    assert shown[shown.index("$\\mathrm{R_X}$") - 1 : shown.index("$\\mathrm{R_X}$") + 2].count("θ1") == 1
    assert [parameter.name for parameter in template.weights] == ["θ1", "θ0"]


@drawer
def test_a_global_phase_does_not_open_a_pyplot_figure():
    # the drawer writes a phase through pyplot, which would make a figure for it
    for part in ("boxed", "template", "ansatz", "encoder"):
        plot_circuit(small(), part=part)
    assert not plt.get_fignums()


@drawer
def test_a_short_circuit_is_not_stretched_and_a_fold_adds_rows():
    assert plot_circuit(small()).get_figwidth() < 4
    template = CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4))
    heights = [plot_circuit(template, fold=fold).get_figheight() for fold in (20, 10)]
    assert heights[0] < heights[1]


@drawer
def test_reversed_bits_put_wire_zero_on_top():
    figure = plot_circuit(small(), reverse_bits=True)
    height = {t.get_text(): t.get_position()[1] for t in figure.axes[0].texts if "{q}" in t.get_text()}
    assert height["${q}_{1}$"] > height["${q}_{0}$"]


def test_without_pylatexenc_the_error_names_the_extra():
    with HAS_PYLATEX.disable_locally(), pytest.raises(MissingExtraError, match=r"qiskit-qdeq\[drawing\]"):
        plot_circuit(small())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "readout"}, "part must be one of"),
        ({"fold": 1}, "fold must be an integer of at least 2"),
        ({"reverse_bits": 1}, "reverse_bits must be True or False"),
        ({"template": QuantumCircuit(1)}, "template must be a CircuitTemplate, got QuantumCircuit"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        plot_circuit(**{"template": small(), **options})


@drawer
@pytest.mark.parametrize("num_qubits", [1, 2, 5])
@pytest.mark.parametrize("reverse_bits", [False, True])
def test_nothing_is_written_across_the_name_of_the_encoders_box(num_qubits, reverse_bits):
    template = CircuitTemplate(AmplitudeEncoder(2, num_qubits), hardware_efficient_ansatz(num_qubits, 1))
    figure = plot_circuit(template, reverse_bits=reverse_bits)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in figure.axes[0].texts}
    name = boxes.pop("S(φ)")
    assert not [other for other, box in boxes.items() if name.overlaps(box)]


@drawer
def test_rows_of_a_folded_circuit_are_about_equally_long():
    template = CircuitTemplate(AngleEncoder("y", [0], 1), long_chain(22))
    axes = plot_circuit(template, part="ansatz", fold=20).axes[0]
    rows = Counter(round(t.get_position()[1]) for t in axes.texts if t.get_text().startswith("θ"))
    assert sorted(rows.values()) == [11, 11]


def long_chain(gates):
    circuit = QuantumCircuit(1)
    for weight in ParameterVector("w", gates):
        circuit.ry(weight, 0)
    return circuit
