"""Finding devices and cutting small ones out of large ones."""

from __future__ import annotations

import pytest
import qiskit_ibm_runtime
from qiskit.circuit.library import CZGate, Measure, SXGate
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import InstructionProperties, Target
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import SubDevice, fake_backend, ibm_backend, sub_device
from qiskit_qdeq.execution.redaction import redact

TOKEN = "sEcReT-tOkEn"


def line(two_qubit, readout):
    """A chain of qubits with the given errors of its gates and readouts."""
    target = Target(num_qubits=len(readout))
    target.add_instruction(SXGate(), {(q,): InstructionProperties(error=1e-4) for q in range(len(readout))})
    pairs = {(q, q + 1): InstructionProperties(error=error) for q, error in enumerate(two_qubit)}
    target.add_instruction(CZGate(), pairs)
    target.add_instruction(Measure(), {(q,): InstructionProperties(error=e) for q, e in enumerate(readout)})
    return SubDevice(target, "line", tuple(range(len(readout))))


def test_the_best_connected_qubits_are_chosen():
    chain = line([0.01, 0.02, 0.01, 0.01], [0.01, 0.3, 0.02, 0.01, 0.01])
    assert sub_device(chain, 3).device_qubits == (2, 3, 4)
    assert sub_device(chain, 1).device_qubits == (0,)
    # a bad gate counts like a bad readout
    assert sub_device(line([0.01, 0.01, 0.2, 0.01], [0.01] * 5), 3).device_qubits == (0, 1, 2)


def test_equal_qubits_are_taken_in_ascending_order():
    assert sub_device(line([0.01] * 4, [0.01] * 5), 3).device_qubits == (0, 1, 2)


def test_the_cut_keeps_gates_errors_and_coherence_of_its_qubits(torino):
    part = sub_device(torino, [5, 4, 3])
    assert part.num_qubits == 3
    assert part.target["cz"][(0, 1)].error == torino.target["cz"][(5, 4)].error
    assert part.target["measure"][(2,)].error == torino.target["measure"][(3,)].error
    assert part.target.qubit_properties[0].t1 == torino.target.qubit_properties[5].t1
    assert part.target.dt == torino.target.dt
    assert set(part.target["cz"]) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    with pytest.raises(NotImplementedError, match="noise_from_backend"):
        part.run(None)


def test_choice_is_repeatable_connected_and_better_than_the_first_qubits(torino):
    chosen = sub_device(torino, 4).device_qubits
    assert chosen == sub_device(torino, 4).device_qubits
    # raises if they are not connected
    assert sub_device(torino, chosen).device_qubits == chosen
    readout = torino.target["measure"]
    assert sum(readout[(q,)].error for q in chosen) < sum(readout[(q,)].error for q in range(4))


@pytest.mark.parametrize(
    ("qubits", "message"),
    [
        (0, "qubits must be an integer of at least 1"),
        (6, "has only 5"),
        ([0, 2], "not connected"),
        ([0, 0], "none twice"),
        ([], "at least one qubit"),
        ([1, 7], "only qubits 0 to 4"),
        ([-1, 0], "a qubit of qubits"),
    ],
)
def test_impossible_qubits_are_refused(qubits, message):
    with pytest.raises(InputError, match=message):
        sub_device(line([0.01] * 4, [0.01] * 5), qubits)


def test_a_simulator_without_couplings_has_nothing_to_cut():
    with pytest.raises(InputError, match="no 2 qubits connected"):
        sub_device(AerSimulator(n_qubits=3), 2)


def test_devices_of_qiskit_itself_can_be_cut():
    assert sub_device(GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], seed=1), 3).num_qubits == 3


@pytest.mark.parametrize("name", ["manila", "FakeManilaV2", "fake_manila"])
def test_fake_backends_have_many_spellings(name):
    assert fake_backend(name).name == "fake_manila"


def test_unknown_fake_backend_names_the_nearest():
    with pytest.raises(InputError, match=r"'torinno'; the nearest names are torino"):
        fake_backend("torinno")
    with pytest.raises(InputError, match="manila"):
        fake_backend("")


def test_failing_account_says_what_to_do_and_keeps_the_token_out(monkeypatch):
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"

    def refuse():
        raise ValueError(f"bad token {TOKEN} or {jwt}")

    monkeypatch.setenv("QISKIT_IBM_TOKEN", TOKEN)
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", refuse)
    with pytest.raises(InputError, match=r"save_account.*QISKIT_IBM_TOKEN") as caught:
        ibm_backend("ibm_somewhere")
    assert TOKEN not in str(caught.value)
    assert jwt not in str(caught.value)
    assert "bad token *** or ***" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_unknown_device_lists_those_of_the_account(monkeypatch):
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    class Service:
        def backend(self, name):
            raise QiskitBackendNotFoundError(name)

        def backends(self):
            return [fake_backend("manila")]

    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", Service)
    with pytest.raises(InputError, match="no device 'ibm_nowhere'; it has fake_manila"):
        ibm_backend("ibm_nowhere")


def test_unreachable_device_says_so(monkeypatch):
    class Service:
        def backend(self, name):
            raise IBMNotAuthorizedError(f"401 for {TOKEN}")

    monkeypatch.setenv("QISKIT_IBM_TOKEN", TOKEN)
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", Service)
    with pytest.raises(InputError, match=r"could not be reached \(IBMNotAuthorizedError: .*401 for \*\*\*"):
        ibm_backend("ibm_somewhere")


def test_redact_leaves_ordinary_messages_alone():
    assert redact("Error 1217: Session is closed on ibm_torino (job c1a2b3)") == (
        "Error 1217: Session is closed on ibm_torino (job c1a2b3)"
    )
