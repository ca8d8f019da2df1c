from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from qiskit_qdeq.data import load_image_split
from qiskit_qdeq.exceptions import DataFileError


def npy_bytes(array, **header):
    buffer = io.BytesIO()
    np.save(buffer, array)
    if not header:
        return buffer.getvalue()
    fields = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, fields)
    return head.getvalue() + array.tobytes()


def write_npz(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, content in members.items():
            archive.writestr(f"{key}.npy", content if isinstance(content, bytes) else npy_bytes(content))
    return path


def load(data_dir, name="mnist", **options):
    return load_image_split(name, data_dir, classes=range(10), **options)


def same(one, other):
    parts = [f"{axis}_{side}" for axis in "xy" for side in ("train", "valid", "test")]
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def test_idx_files_plain_and_gzip_and_npz_give_the_same_split(idx_folder, arrays, tmp_path_factory):
    other = tmp_path_factory.mktemp("npz")
    np.savez_compressed(other / "mnist.npz", **arrays)
    (other / "plain").mkdir()
    np.savez(other / "plain" / "mnist_copy.npz", **arrays)
    from_idx = load(idx_folder)
    assert len(from_idx.x_test) == 30
    assert same(from_idx, load(other))
    assert same(from_idx, load(other / "mnist.npz"))
    assert same(from_idx, load(other / "plain"))
    assert same(from_idx, load(str(other / "plain")))


def test_a_folder_of_the_data_sets_name_is_looked_into_first(idx_folder, arrays):
    (idx_folder / "mnist").mkdir()
    inverted = arrays | {"x_train": 255 - arrays["x_train"]}
    np.savez(idx_folder / "mnist" / "mnist.npz", **inverted)
    assert same(load(idx_folder), load(idx_folder / "mnist" / "mnist.npz"))
    assert not same(load(idx_folder), load(idx_folder, name="fashion_mnist"))


def test_fortran_order_big_endian_and_column_labels_are_understood(tmp_path, arrays):
    np.savez(tmp_path / "mnist.npz", **arrays)
    odd = {
        "x_train": np.asfortranarray(arrays["x_train"]),
        "y_train": arrays["y_train"].astype(">i4")[:, None],
        "x_test": arrays["x_test"].astype(">i2"),
        "y_test": arrays["y_test"],
    }
    np.savez(tmp_path / "odd.npz", **odd)
    assert same(load(tmp_path), load(tmp_path / "odd.npz"))


def test_several_possible_archives_are_not_guessed_between(tmp_path, arrays):
    for suffix in ("_a", "-b"):
        np.savez(tmp_path / f"mnist{suffix}.npz", **arrays)
    with pytest.raises(DataFileError, match=r"several archives could be mnist: mnist-b.npz, mnist_a.npz"):
        load(tmp_path)
    np.savez(tmp_path / "mnist.npz", **arrays)
    assert len(load(tmp_path).x_test) == 30


def test_an_archive_of_another_data_set_is_not_taken(tmp_path, arrays):
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    with pytest.raises(DataFileError, match="holds no mnist"):
        load(tmp_path)


def test_missing_places_and_files_name_what_was_looked_for(tmp_path, idx_folder):
    with pytest.raises(DataFileError, match="nowhere' does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match=r"cifar10\.npz \(keys x_train, y_train, x_test, y_test\)"):
        load(idx_folder, name="cifar10")
    (idx_folder / "train-labels-idx1-ubyte.gz").unlink()
    names = "train-labels-idx1-ubyte, train-labels.idx1-ubyte, train-labels-idx1-ubyte.gz"
    with pytest.raises(DataFileError, match=f"y_train is missing; looked for {names}"):
        load(idx_folder)
    (idx_folder / "empty").mkdir()
    with pytest.raises(DataFileError, match=r"train-images-idx3-ubyte, .*t10k-labels-idx1-ubyte, with or without"):
        load(idx_folder / "empty")


def test_a_damaged_idx_file_of_the_folder_is_named(idx_folder):
    path = idx_folder / "t10k-images.idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataFileError, match=r"t10k-images\.idx3-ubyte\.gz: gzip stream cut short"):
        load(idx_folder)


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_objects_are_refused_and_never_unpickled(tmp_path, arrays):
    content = arrays | {"y_train": np.array([Trap(tmp_path / "sprung")], dtype=object)}
    np.savez(tmp_path / "mnist.npz", **content)
    with pytest.raises(DataFileError, match=r"mnist\.npz, key 'y_train': type object is not allowed"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("x_train", lambda a: a.astype("S3"), r"key 'x_train': type \|S3 is not allowed"),
        ("x_train", lambda a: a > 99, "key 'x_train': type bool is not allowed"),
        ("x_train", lambda a: a[:, :27], r"x_train: shape \(60, 27, 28\), but mnist takes \(N, 28, 28\)"),
        ("x_test", lambda a: a[:0], r"x_test: shape \(0, 28, 28\)"),
        ("x_train", lambda a: np.int16(a) - 1, "x_train: int16 pixels run from -1 to 254, expected 0 to 255"),
        (
            "x_train",
            lambda a: np.float32(a),
            "x_train: float32 pixels run from 0.0 to 255.0, expected 0 to 1",
        ),
        ("x_test", lambda a: np.where(a == a[3, 3, 3], np.nan, 0.5), "x_test: float64 pixels run from nan"),
        (
            "x_test",
            lambda a: np.where(a == a[3, 3, 3], np.inf, 0.5),
            "x_test: float64 pixels run from 0.5 to inf",
        ),
        ("y_train", lambda a: a[:-1], "y_train: 59 labels for 60 images"),
        ("y_train", lambda a: a / 2, "y_train: float64 labels"),
        ("y_test", lambda a: np.stack([a, a], 1), r"y_test: uint8 labels of shape \(30, 2\)"),
        (
            "y_test",
            lambda a: np.where(np.arange(30) == 7, 10, a),
            r"y_test: label 10 of image 7 is not in 0\.\.9",
        ),
        ("y_test", lambda a: -1 - np.int8(a), "y_test: label -"),
        ("y_test", lambda a: b"\x93NUMPY", "key 'y_test': bad .npy header at byte 0"),
        (
            "y_test",
            lambda a: npy_bytes(a).replace(b"(30,)", b"(30,("),
            "key 'y_test': bad .npy header at byte 0",
        ),
        ("y_test", lambda a: npy_bytes(a).replace(b"|u1", b",u1"), "key 'y_test': bad .npy header at byte 0"),
        ("y_test", lambda a: b"", "key 'y_test': bad .npy header at byte 0"),
        (
            "y_test",
            lambda a: npy_bytes(a)[:-1],
            "key 'y_test': header declares .* 30 bytes from byte 128 on, but 29",
        ),
        ("y_test", lambda a: npy_bytes(a) + b"x", "key 'y_test': header declares .* but 31 follow"),
        ("y_test", lambda a: npy_bytes(a, shape=(10**12,)), "key 'y_test': header declares .* but 30 follow"),
        ("y_test", lambda a: npy_bytes(a, shape=(-5, -6)), "key 'y_test': header declares .* but 30 follow"),
        ("y_test", lambda a: npy_bytes(a, descr="<U0"), "key 'y_test': type <U0 is not allowed"),
    ],
)
def test_wrong_arrays_name_file_and_key(tmp_path, arrays, key, change, message):
    path = write_npz(tmp_path / "mnist.npz", arrays | {key: change(arrays[key])})
    with pytest.raises(DataFileError, match=message) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)


def test_a_missing_key_is_named_with_the_keys_present(tmp_path, arrays):
    del arrays["y_test"]
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(DataFileError, match=r"key 'y_test': missing; the archive holds x_train, y_train, x_test"):
        load(tmp_path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_anywhere_in_an_archive_is_found_or_harmless(tmp_path, arrays, compression):
    path = write_npz(tmp_path / "mnist.npz", arrays, compression)
    intact, whole = load(path), path.read_bytes()
    refused = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 0x21
        path.write_bytes(bytes(damaged))
        try:
            assert same(load(path), intact)
        except DataFileError:
            refused += 1
    assert refused > 50
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataFileError, match=r"not an \.npz archive"):
            load(path)


def test_a_broken_deflate_stream_is_refused(tmp_path, arrays):
    path = write_npz(tmp_path / "mnist.npz", arrays)
    content = bytearray(path.read_bytes())
    content[30 + len("x_train.npy")] = 0xFF  # first byte after the local header: a block type that does not exist
    path.write_bytes(bytes(content))
    with pytest.raises(DataFileError, match=r"key 'x_train': damaged or unreadable: .*invalid block type"):
        load(path)


def test_a_member_larger_than_its_array_is_refused_before_it_is_unpacked(tmp_path, arrays):
    path = write_npz(tmp_path / "mnist.npz", arrays | {"x_train": npy_bytes(arrays["x_train"]) + bytes(50_000_000)})
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match="key 'x_train': header declares"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_an_archive_that_zipfile_cannot_unpack_is_refused(tmp_path, arrays):
    path = write_npz(tmp_path / "mnist.npz", arrays)
    content = path.read_bytes()
    central = content.index(b"PK\x01\x02")
    # Flag bit 0 of the local and the central header says "encrypted".
    locked = bytearray(content)
    locked[6] |= 1
    locked[central + 8] |= 1
    path.write_bytes(bytes(locked))
    with pytest.raises(DataFileError, match=r"key 'x_train': damaged or unreadable: .*encrypted"):
        load(path)
    newer = bytearray(content)
    newer[central + 6] = 200
    path.write_bytes(bytes(newer))
    with pytest.raises(DataFileError, match=r"mnist\.npz: not an \.npz archive: zip file version"):
        load(path)
    undecodable = bytearray(content)
    undecodable[central + 9] |= 8  # names are UTF-8
    undecodable[central + 46] = 0xFF
    path.write_bytes(bytes(undecodable))
    with pytest.raises(DataFileError, match=r"mnist\.npz: not an \.npz archive: 'utf-8' codec"):
        load(path)
    unknown = bytearray(content)
    unknown[8] = unknown[central + 10] = 99
    path.write_bytes(bytes(unknown))
    with pytest.raises(DataFileError, match="key 'x_train': damaged or unreadable"):
        load(path)
