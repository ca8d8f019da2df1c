import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors import safe_open

from qiskit_qdeq.exceptions import CheckpointError, CheckpointWarning, InputError
from qiskit_qdeq.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_latest,
    remove_checkpoint,
    require,
    save_checkpoint,
)

ARRAYS = {"weights": np.array([1.5, -2.0]), "mask": np.array([True, False]), "steps": np.array(3)}
DOCUMENT = {"configuration": {"rate": 0.005, "name": "é"}, "loss": [1.0, float("nan")]}

DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
)
DOCUMENTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**130), 2**130)
        | st.floats()
        | st.text()
        | st.sampled_from(["float:nan", "float:x", "str:", "str:float:inf", "NaN", "\ud800", "\x7f\x00"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def document_text(blob):
    """Cut the document out of a file by the format's description alone."""
    return json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]["document"]


def build(tensors, data=b"", document="{}", outline=(), **metadata):
    """Build a checkpoint file by hand from its description; keyword arguments replace metadata."""
    sha = hashlib.sha256()
    for part in ("qiskit-qdeq checkpoint", "1", document, json.dumps([list(line) for line in outline])):
        sha.update(len(part).to_bytes(8, "little") + part.encode())
    sha.update(data)
    known = {"format": "qiskit-qdeq checkpoint", "version": "1", "document": document}
    known = {**known, "sha256": sha.hexdigest(), **metadata}
    chosen = {key: value for key, value in known.items() if value is not None}
    return raw(json.dumps({"__metadata__": chosen, **tensors}).encode(), data)


def raw(header, data=b""):
    return len(header).to_bytes(8, "little") + header + data


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


@pytest.fixture
def saved(path):
    save_checkpoint(path, ARRAYS, DOCUMENT)
    return path


def same_arrays(left, right):
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


@given(
    arrays=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_./-]{1,12}", fullmatch=True),
        npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
        max_size=4,
    ),
    document=DOCUMENTS,
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_arrays_and_document_come_back_bit_for_bit(arrays, document, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / "run.safetensors"
    save_checkpoint(path, arrays, document)
    loaded = load_checkpoint(path)
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    assert same_arrays(loaded.arrays, native)
    # repr tells 1 from 1.0 and True, 0.0 from -0.0, and shows NaN.
    assert repr(loaded.document) == repr(document)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_payload_and_sign_of_nan_survive(path, dtype):
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000], dtype=np.uint32)
    values = bits.view(np.float32) if dtype is np.float32 else (bits.astype(np.uint64) << 32).view(np.float64)
    save_checkpoint(path, {"values": values}, {})
    assert load_checkpoint(path).arrays["values"].tobytes() == values.tobytes()


def test_strided_and_transposed_arrays_come_back_by_value(path):
    array = np.arange(24.0).reshape(4, 6)
    save_checkpoint(path, {"strided": array[::2, ::-3], "transposed": array.T}, {})
    loaded = load_checkpoint(path).arrays
    np.testing.assert_array_equal(loaded["strided"], [[5, 2], [17, 14]])
    np.testing.assert_array_equal(loaded["transposed"], array.T)


def test_loaded_arrays_are_writable_and_independent(saved):
    first, second = load_checkpoint(saved), load_checkpoint(saved)
    first.arrays["weights"][:] = 7.0
    np.testing.assert_array_equal(second.arrays["weights"], ARRAYS["weights"])


def test_any_safetensors_reader_reads_the_file(saved):
    with safe_open(saved, framework="numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        assert file.metadata()["format"] == "qiskit-qdeq checkpoint"
        np.testing.assert_array_equal(file.get_tensor("weights"), ARRAYS["weights"])


def test_digest_is_over_format_version_document_names_dtypes_shapes_and_bytes(saved):
    outline = [["mask", "|b1", [2]], ["steps", "<i8", []], ["weights", "<f8", [2]]]
    sha = hashlib.sha256()
    text = document_text(saved.read_bytes())
    for part in ("qiskit-qdeq checkpoint", "1", text, json.dumps(outline)):
        sha.update(len(part).to_bytes(8, "little") + part.encode())
    for name in ("mask", "steps", "weights"):
        sha.update(ARRAYS[name].tobytes())
    with safe_open(saved, framework="numpy") as file:
        assert file.metadata()["sha256"] == sha.hexdigest()


def test_a_file_built_by_hand_from_the_description_loads(path):
    data = np.array([[1.0, 2.0]], dtype="<f4").tobytes()
    tensors = {"x": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
    path.write_bytes(build(tensors, data, '{"a": "float:-inf"}', [["x", "<f4", [1, 2]]]))
    loaded = load_checkpoint(path)
    assert loaded.document == {"a": -np.inf}
    assert loaded.arrays["x"].tolist() == [[1.0, 2.0]]


def test_truncation_at_every_byte_is_noticed(saved):
    for length in reversed(range(saved.stat().st_size)):
        os.truncate(saved, length)
        with pytest.raises(CheckpointError, match=r"run\.safetensors"):
            load_checkpoint(saved)


def test_every_single_flipped_bit_is_noticed(saved):
    blob = saved.read_bytes()
    with saved.open("r+b", buffering=0) as file:
        for position, byte in enumerate(blob):
            for value in (*(byte ^ 1 << bit for bit in range(8)), byte):
                file.seek(position)
                file.write(bytes([value]))
                if value != byte:
                    with pytest.raises(CheckpointError, match=r"run\.safetensors"):
                        load_checkpoint(saved)
    load_checkpoint(saved)


@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_overwritten_stretches_never_load_as_something_else(edits, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "edited.safetensors"
    if not path.exists():
        save_checkpoint(path, ARRAYS, DOCUMENT)
    original = path.read_bytes()
    blob = bytearray(original)
    for position, piece in edits:
        start = position % len(blob)
        blob[start : start + len(piece)] = piece
    damaged = path.with_name("damaged.safetensors")
    damaged.write_bytes(blob)
    try:
        loaded = load_checkpoint(damaged)
    except CheckpointError:
        return
    assert same_arrays(loaded.arrays, ARRAYS)
    assert repr(loaded.document) == repr(DOCUMENT)


def test_appended_bytes_are_noticed(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="arrays are damaged"):
        load_checkpoint(saved)


X = {"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
HUGE = {"x": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}
WRAPPING = {"x": {"dtype": "U8", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}
EMPTY_BUT_IMPOSSIBLE = {"x": {"dtype": "U8", "shape": [0, 2**63], "data_offsets": [0, 0]}}
MANY_AXES = {"x": {"dtype": "U8", "shape": [1] * 100, "data_offsets": [0, 1]}}


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "within its header"),
        (b"\x80\x04\x95pickle", "within its header"),
        (b"PK\x03\x04" + b"\0" * 100, "within its header"),
        (raw(b"PK\x03\x04"), "header is damaged"),
        (b"\xff" * 8, "within its header"),
        ((2**40).to_bytes(8, "little") + b"{}", "within its header"),
        ((17 * 2**20).to_bytes(8, "little") + b" " * (17 * 2**20), "more than the 16777216 allowed"),
        (raw(b"[" * 200_000), "nested too deeply"),
        (raw(b"[]"), "not in the format"),
        (raw(b"{}"), "not in the format"),
        (raw(b'{"__metadata__": {"format": "pt"}}'), "not in the format"),
        (raw(b'{"__metadata__": {}, "__metadata__": {}}'), "a key twice"),
        (raw(b'{"a": NaN}'), "the number NaN"),
        (raw(b'{"a": 1e999}'), "the number 1e999"),
        (raw(b"\xff\xfe"), "header is damaged"),
        (build({}, version="2"), "version '2'.*upgrade"),
        (build({}, version=None), "which version"),
        (build({}, sha256=None), "do not have the keys"),
        (build({}, extra="more"), "do not have the keys"),
        (build({}, sha256="0" * 64), "digest"),
        (build({}, document="[]"), "not a JSON object"),
        (build({}, document='{"a": NaN}'), "the number NaN"),
        (build({}, document='{"a": "float:1"}'), "unknown float"),
        (build({}, document='{"a": 1, "a": 1}'), "a key twice"),
        (build({}, document='{"a": ' + "[" * 100 + "]" * 100 + "}"), "nested more than 64"),
        (build({}, document='{"a": ' + "9" * 10_000 + "}"), "document is damaged"),
        (build(X, b"\0"), "digest"),
        (build(HUGE), "arrays are damaged"),
        (build(WRAPPING), "arrays are damaged"),
        (build(EMPTY_BUT_IMPOSSIBLE), "impossible shape|arrays are damaged"),
        (build(MANY_AXES, b"\0"), "impossible shape"),
        (build({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"\0\0"), "dtype BF16"),
        (build({"x": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2"), "no booleans"),
        (build({"a b": X["x"]}, b"\0"), "of the name 'a b'"),
        (build({"x": {**X["x"], "shape": [-1]}}, b"\0"), "arrays are damaged"),
        (build({**X, "y": X["x"]}, b"\0"), "arrays are damaged"),
    ],
)
def test_files_that_are_no_checkpoint_are_refused_with_the_reason(path, blob, reason):
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=f"run.safetensors.*({reason})"):
        load_checkpoint(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors.*no such file"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="not a file"):
        load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="path must be a str or a path, got int"):
        load_checkpoint(3)
    with pytest.raises(InputError, match="null character"):
        load_checkpoint("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a file"):
        load_checkpoint(tmp_path / "pipe")


def test_previous_generation_is_kept_and_offered_when_the_newest_is_damaged(saved):
    first = saved.read_bytes()
    save_checkpoint(saved, ARRAYS, {"generation": 2})
    previous = saved.with_name("run.safetensors.previous")
    assert previous.read_bytes() == first
    saved.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"load '.*run\.safetensors\.previous'"):
        load_checkpoint(saved)
    assert repr(load_checkpoint(previous).document) == repr(DOCUMENT)


def test_a_damaged_file_does_not_replace_the_previous_generation(saved):
    save_checkpoint(saved, ARRAYS, {"generation": 2})
    good = saved.with_name("run.safetensors.previous").read_bytes()
    saved.write_bytes(saved.read_bytes()[:-1])
    save_checkpoint(saved, ARRAYS, {"generation": 3})
    assert saved.with_name("run.safetensors.previous").read_bytes() == good
    assert load_checkpoint(saved).document == {"generation": 3}


def test_previous_generation_can_be_left_out(saved):
    save_checkpoint(saved, ARRAYS, {}, keep_previous=False)
    assert {file.name for file in saved.parent.iterdir()} == {"run.safetensors", "run.json"}


def test_readable_copy_is_strict_json_with_the_document(saved):
    def refuse(token):
        raise AssertionError(token)

    copy = json.loads(saved.with_suffix(".json").read_text(), parse_constant=refuse)
    assert copy == {
        "format": "qiskit-qdeq checkpoint",
        "version": 1,
        "document": {"configuration": {"rate": 0.005, "name": "é"}, "loss": [1.0, "float:nan"]},
    }


def test_readable_copy_is_never_read_back(saved):
    saved.with_suffix(".json").write_text("nonsense")
    assert repr(load_checkpoint(saved).document) == repr(DOCUMENT)


def test_a_json_file_of_somebody_else_is_not_overwritten(path):
    path.with_suffix(".json").write_text('{"my": "configuration"}')
    with pytest.raises(CheckpointError, match=r"run\.json.*something else"):
        save_checkpoint(path, ARRAYS, DOCUMENT)
    assert path.with_suffix(".json").read_text() == '{"my": "configuration"}'
    assert not path.exists()


def fail_at(monkeypatch, name, call, error):
    """Let call number ``call`` of ``os.<name>`` raise."""
    genuine, calls = getattr(os, name), []

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise OSError(error, os.strerror(error))
        return genuine(*args, **kwargs)

    monkeypatch.setattr(os, name, counted)
    return calls


@pytest.mark.parametrize(("name", "call"), [(n, c) for n in ("fsync", "replace") for c in (1, 2, 3)])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_old_checkpoint_as_it_was(saved, monkeypatch, name, call, error):
    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        fail_at(patch, name, call, error)
        with pytest.raises(CheckpointError, match=rf"run\.safetensors.*\({os.strerror(error)}\).*untouched"):
            save_checkpoint(saved, ARRAYS, {"generation": 2})
    assert saved.read_bytes() == before
    load_checkpoint(saved)
    assert not list(saved.parent.glob(".*"))
    save_checkpoint(saved, ARRAYS, {"generation": 3})
    assert load_checkpoint(saved).document == {"generation": 3}


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced")
def test_a_failing_sync_of_the_folder_is_reported_with_the_new_checkpoint_in_place(saved, monkeypatch):
    fail_at(monkeypatch, "fsync", 4, errno.EIO)
    with pytest.raises(CheckpointError, match="may not survive a power failure"):
        save_checkpoint(saved, ARRAYS, {"generation": 2})
    assert load_checkpoint(saved).document == {"generation": 2}


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced")
def test_file_systems_that_cannot_sync_folders_are_accepted(saved, monkeypatch):
    calls = fail_at(monkeypatch, "fsync", 4, errno.EINVAL)
    save_checkpoint(saved, ARRAYS, {"generation": 2})
    assert len(calls) == 4


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_a_write_that_stops_half_way_leaves_the_old_checkpoint_as_it_was(saved):
    import resource

    before = saved.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the readable copy and the old generation, too little for the new one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointError, match="untouched"):
            save_checkpoint(saved, {"weights": np.ones(10_000)}, DOCUMENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read_bytes() == before
    assert not list(saved.parent.glob(".*"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_reported(saved):
    saved.parent.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match=r"run\.safetensors.*untouched"):
            save_checkpoint(saved, ARRAYS, {"generation": 2})
    finally:
        saved.parent.chmod(0o755)
    assert repr(load_checkpoint(saved).document) == repr(DOCUMENT)


def test_an_absent_folder_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="No such file or directory"):
        save_checkpoint(tmp_path / "gone" / "run.safetensors", ARRAYS, DOCUMENT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")
def test_a_process_killed_while_saving_always_leaves_a_consistent_checkpoint(tmp_path):
    # One helper forks and kills many savers, so that the package is imported only once.
    script = """
        import os, pathlib, random, signal, sys, time
        import numpy as np
        from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint

        path = pathlib.Path(sys.argv[1])
        draw = random.Random(5)
        counter = 0
        for _ in range(3):
            start = time.perf_counter()
            save_checkpoint(path, {"weights": np.full(50, 0)}, {"counter": 0})
            duration = time.perf_counter() - start
        for attempt in range(100):
            # at least 15 kills, and more where a busy disk lets few savers finish
            if attempt >= 15 and counter > 3 and list(path.parent.glob(".*.tmp")):
                break
            child = os.fork()
            if child == 0:
                while True:
                    counter += 1
                    save_checkpoint(path, {"weights": np.full(50, counter)}, {"counter": counter})
            time.sleep(draw.uniform(1, 6) * min(duration, 0.1) * (1 + attempt // 15))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found = load_checkpoint(path)
            assert (found.arrays["weights"] == found.document["counter"]).all()
            assert found.document["counter"] >= counter
            counter = found.document["counter"]
            previous = path.with_name(path.name + ".previous")
            if previous.exists():
                load_checkpoint(previous)
        print(counter, len(list(path.parent.glob(".*.tmp"))))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run.safetensors")],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    saves, interrupted = map(int, done.stdout.split())
    # Otherwise the savers were killed before or between saves, and the test has shown nothing.
    assert saves > 3
    assert interrupted > 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": {"b": [0, (1, 2)]}}, r"document\.a\.b\[1\] is of type tuple"),
        ({"rate": np.float64(0.1)}, r"document\.rate is of type numpy\.float64.*\.item\(\)"),
        ({"a": {1: 2}}, r"document\.a has the key 1 of type int"),
        ({"a": b"bytes"}, r"document\.a is of type bytes"),
        ({"a": 1j}, r"document\.a is of type complex"),
        ({"a": Path("x")}, r"document\.a is of type pathlib"),
        ({"a": 1 << 5000}, r"document\.a is an integer of 5001 bits"),
        ([1], "document must be a mapping"),
    ],
)
def test_documents_that_json_cannot_hold_are_refused_with_their_key(path, document, message):
    with pytest.raises(InputError, match=message):
        save_checkpoint(path, {}, document)
    assert not path.exists()


def test_a_document_that_contains_itself_is_refused(path):
    document = {}
    document["self"] = document
    with pytest.raises(InputError, match="nested more than 64 levels"):
        save_checkpoint(path, {}, document)


def test_a_document_too_long_to_load_is_not_saved(path):
    with pytest.raises(InputError, match="as arrays"):
        save_checkpoint(path, {}, {"history": "x" * (17 * 2**20)})
    assert not path.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1.0]}, "must be a numpy.ndarray, got list"),
        ({"a": np.ma.masked_array([1.0], [True])}, "must be a numpy.ndarray, got numpy.ma"),
        ({"a": np.array([1j])}, "dtype complex128"),
        ({"a": np.array(["x"])}, "dtype <U1"),
        ({"a": np.array([None])}, "dtype object"),
        ({"a": np.array([0], dtype="M8[s]")}, "dtype datetime64"),
        ({"__metadata__": np.zeros(1)}, "the name '__metadata__'"),
        ({"é": np.zeros(1)}, "the name 'é'"),
        ({"": np.zeros(1)}, "the name ''"),
        ({1: np.zeros(1)}, "the name 1"),
        ([np.zeros(1)], "arrays must be a mapping"),
    ],
)
def test_arrays_that_cannot_be_stored_are_refused_with_their_name(path, arrays, message):
    with pytest.raises(InputError, match=message):
        save_checkpoint(path, arrays, {})
    assert not path.exists()


@pytest.mark.parametrize("name", ["run", "run.json", "run.npz", ".safetensors"])
def test_names_whose_readable_copy_could_clash_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"must end in '\.safetensors'"):
        save_checkpoint(tmp_path / name, {}, {})


def stored(**configuration):
    return Checkpoint({}, {"configuration": configuration, "steps": 12})


def test_require_accepts_equal_configurations_and_ignores_other_top_level_keys():
    configuration = {"rate": 1, "limit": float("nan"), "layers": [1, {"kind": "z"}], "flag": True}
    wanted = {"rate": 1.0, "limit": float("nan"), "layers": [1, {"kind": "z"}], "flag": True}
    require(stored(**configuration), {"configuration": wanted})


def test_require_lists_every_difference_with_both_values():
    found = stored(num_qubits=4, ansatz={"seed": 1, "kind": "z"}, layers=[1, 2], flag=True, old=None)
    wanted = {"num_qubits": 10, "ansatz": {"seed": 2, "kind": "z"}, "layers": [1, 3], "flag": 1, "new": "x"}
    with pytest.raises(CheckpointError) as caught:
        require(found, {"configuration": wanted, "version": 3})
    assert str(caught.value).split("\n") == [
        "The checkpoint does not fit what is wanted:",
        "  configuration.num_qubits: stored 4, wanted 10",
        "  configuration.ansatz.seed: stored 1, wanted 2",
        "  configuration.layers[1]: stored 2, wanted 3",
        "  configuration.flag: stored True, wanted 1",
        "  configuration.new: stored nothing, wanted 'x'",
        "  configuration.old: stored None, wanted nothing",
        "  version: stored nothing, wanted 3",
    ]


def test_require_names_the_file(saved):
    with pytest.raises(CheckpointError, match=r"run\.safetensors.*\n  loss: stored \[1\.0, nan\], wanted 3"):
        require(load_checkpoint(saved), {"loss": 3})


def test_require_refuses_what_no_document_can_hold():
    with pytest.raises(InputError, match=r"wanted\.configuration\.layers is of type tuple"):
        require(stored(layers=[1]), {"configuration": {"layers": (1,)}})
    with pytest.raises(InputError, match="wanted must be a mapping"):
        require(stored(), 3)


def test_latest_is_the_file_itself_or_with_a_warning_the_one_before_it(saved):
    save_checkpoint(saved, ARRAYS, {"generation": 2})
    assert load_latest(saved).document == {"generation": 2}
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning, match=r"run\.safetensors' cannot be used.*previous.* lost"):
        found = load_latest(saved)
    assert repr(found.document) == repr(DOCUMENT)
    assert found.path.name == "run.safetensors.previous"


def test_latest_without_a_usable_generation_reports_the_file_itself(saved):
    saved.with_name("run.safetensors.previous").write_bytes(b"nothing")
    saved.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"run\.safetensors' cannot be used"):
        load_latest(saved)


def test_removing_a_checkpoint_deletes_all_that_saving_wrote_and_nothing_else(saved):
    save_checkpoint(saved, ARRAYS, {})
    folder = saved.parent
    (folder / ".run.safetensors.12-ab.tmp").write_bytes(b"half")
    (folder / "mine.safetensors").write_bytes(b"mine")
    remove_checkpoint(saved)
    assert [file.name for file in folder.iterdir()] == ["mine.safetensors"]
    remove_checkpoint(saved)


def test_removing_a_checkpoint_refuses_a_json_file_of_somebody_else_before_it_deletes_anything(saved):
    saved.with_suffix(".json").write_text('{"my": "configuration"}')
    with pytest.raises(CheckpointError, match=r"run\.json.*something else"):
        remove_checkpoint(saved)
    assert saved.exists()
