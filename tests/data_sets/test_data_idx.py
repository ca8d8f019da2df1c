from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_qdeq.data import read_idx
from qiskit_qdeq.exceptions import DataFileError

IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def encode_idx(array):
    header = bytes([0, 0, IDX_CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


SMALL = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def write(folder, content, name="images"):
    path = folder / name
    path.write_bytes(content)
    return path


def peak_memory(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("dtype", IDX_CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 2, 4), (0, 28, 28)])
def test_what_was_written_is_read_in_native_byte_order(tmp_path, compress, dtype, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    read = read_idx(write(tmp_path, compress(encode_idx(array))))
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_gzip_is_recognized_by_content_and_may_have_several_members(tmp_path):
    content = encode_idx(SMALL)
    path = write(tmp_path, gzip.compress(content[:9], mtime=0) + gzip.compress(content[9:]), "no-suffix")
    np.testing.assert_array_equal(read_idx(path), SMALL)
    np.testing.assert_array_equal(read_idx(write(tmp_path, content, "plain.gz")), SMALL)


@pytest.mark.parametrize("length", range(len(encode_idx(SMALL))))
def test_a_cut_file_names_itself_and_the_byte_where_it_ends(tmp_path, length):
    path = write(tmp_path, encode_idx(SMALL)[:length])
    with pytest.raises(DataFileError, match=rf"images: truncated at byte {length}:"):
        read_idx(path)
    with pytest.raises(DataFileError, match=rf"images: truncated at byte {length}:"):
        read_idx(write(tmp_path, gzip.compress(encode_idx(SMALL)[:length], mtime=0)))


def test_a_cut_gzip_stream_is_reported_wherever_it_is_cut(tmp_path):
    stream = gzip.compress(encode_idx(SMALL), mtime=0)
    for length in range(2, len(stream)):
        with pytest.raises(DataFileError, match=r"images: gzip stream cut short at byte \d+ of its content"):
            read_idx(write(tmp_path, stream[:length]))


def test_a_cut_gzip_stream_names_the_byte_of_the_content(tmp_path):
    content = encode_idx(np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8))
    stream = gzip.compress(content, mtime=0)[:200_000]
    intact = len(zlib.decompressobj(wbits=31).decompress(stream))
    with pytest.raises(DataFileError, match=f"cut short at byte {intact} of its content"):
        read_idx(write(tmp_path, stream))


def test_a_flipped_byte_in_a_gzip_stream_never_changes_the_array(tmp_path):
    stream = gzip.compress(encode_idx(SMALL), mtime=0)
    refused = 0
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 0x10
        try:
            np.testing.assert_array_equal(read_idx(write(tmp_path, bytes(damaged))), SMALL)
        except DataFileError:
            refused += 1
    assert refused >= len(stream) - 8  # time stamp, extra flags and system (6 bytes) carry no data


def test_a_wrong_gzip_checksum_is_reported_at_the_end_of_the_content(tmp_path):
    stream = bytearray(gzip.compress(encode_idx(SMALL), mtime=0))
    stream[-8] ^= 1
    with pytest.raises(DataFileError, match=r"gzip stream damaged after byte 28 of its content: CRC check failed"):
        read_idx(write(tmp_path, bytes(stream)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x01\x00\x08\x01" + bytes(8), "bad magic number at byte 0: 01 00"),
        (b"<html>not an idx file</html>", "bad magic number at byte 0: 3c 68"),
        (b"\x00\x00\x0a\x01" + bytes(8), "unknown type code 0x0a at byte 2"),
        (b"\x00\x00\x08\x00", "bad number of dimensions at byte 3: 0"),
        (b"\x00\x00\x08\xff" + bytes(2000), "bad number of dimensions at byte 3: 255"),
        (encode_idx(SMALL) + b"xy", "trailing bytes from byte 28 on"),
        (gzip.compress(encode_idx(SMALL) + b"x", mtime=0), "trailing bytes from byte 28 on"),
        (gzip.compress(encode_idx(SMALL), mtime=0) + b"x", "gzip stream damaged after byte 28"),
    ],
)
def test_a_malformed_file_names_itself_and_the_byte(tmp_path, content, message):
    with pytest.raises(DataFileError, match=rf"images: {message}"):
        read_idx(write(tmp_path, content))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=40), st.sampled_from([b"", b"\0\0\x08", b"\x1f\x8b\x08\0"]), st.booleans())
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory, tail, head, compressed):
    content = gzip.compress(head + tail, mtime=0) if compressed else head + tail
    path = write(tmp_path_factory.getbasetemp(), content)
    try:
        array = read_idx(path)
    except DataFileError:
        return
    assert encode_idx(array) == head + tail


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_declared_sizes_take_no_memory_that_the_file_does_not_fill(tmp_path, compress):
    header = b"\0\0\x08\x03" + struct.pack(">3I", 1_000_000, 28, 28)
    path = write(tmp_path, compress(header + bytes(100)))

    def read():
        with pytest.raises(DataFileError, match="truncated at byte 116"):
            read_idx(path)

    assert peak_memory(read) < 5e6


def test_a_plain_file_shorter_than_declared_is_not_read_at_all(tmp_path):
    path = write(tmp_path, b"\0\0\x08\x01" + struct.pack(">I", 40_000_000) + bytes(20_000_000))

    def read():
        with pytest.raises(DataFileError, match="truncated at byte 20000008"):
            read_idx(path)

    assert peak_memory(read) < 5e6


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_sizes_above_the_cap_are_refused_at_the_dimensions(tmp_path, compress):
    header = b"\0\0\x0e\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    with pytest.raises(DataFileError, match="bad dimensions at byte 4"):
        read_idx(write(tmp_path, compress(header + bytes(100))))


def test_a_gzip_bomb_is_read_to_the_declared_size_only(tmp_path):
    path = write(tmp_path, gzip.compress(encode_idx(SMALL) + bytes(50_000_000)))

    def read():
        with pytest.raises(DataFileError, match="trailing bytes from byte 28 on"):
            read_idx(path)

    assert peak_memory(read) < 5e6


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataFileError, match="nowhere: cannot be read: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataFileError, match="cannot be read"):
        read_idx(tmp_path)
