import h5py
import numpy as np
import pytest

from pipeline.errors import DamagedError
from pipeline.store import hdf5

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4),
    "empty": np.empty((0, 32), np.uint8),
    "words": hdf5.strings(["ant", "Blüte", "not\udcffutf-8", ""]),
    "json": hdf5.text({"ä": [1, None]}),
}


@pytest.mark.parametrize("deferred", [(), ("a",), ("b", "a")])
def test_an_image_is_the_same_bytes_whether_or_not_arrays_are_deferred_to_the_tail(
    tmp_path, deferred
):
    image = hdf5.build(ARRAYS, deferred=deferred)
    data = b"".join(image.pieces())
    assert data == b"".join(hdf5.build(ARRAYS, deferred=deferred).pieces())
    path = tmp_path / "file.h5"
    path.write_bytes(data)
    with hdf5.Reader(path) as reader:
        assert reader.names() == sorted(ARRAYS)
        np.testing.assert_array_equal(reader.array("a"), ARRAYS["a"])
        np.testing.assert_array_equal(reader.map("a"), ARRAYS["a"])
        assert hdf5.to_strings(reader.array("words")) == ("ant", "Blüte", "not\udcffutf-8", "")
        assert reader.json("json") == {"ä": [1, None]}
        assert reader.array("empty").shape == (0, 32)


def external_storage(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4,), "u1", external=[(str(secret), 0, 4)])


def external_link(path, secret):
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(4)
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(str(secret), "/x")


def soft_link(path, secret):
    with h5py.File(path, "w") as file:
        file["y"] = np.arange(4)
        file["x"] = h5py.SoftLink("/y")


def virtual(path, secret):
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(4)
    layout = h5py.VirtualLayout((4,), "i8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)


def group(path, secret):
    with h5py.File(path, "w") as file:
        file.create_group("x")


def variable_strings(path, secret):
    with h5py.File(path, "w") as file:
        file["x"] = ["a", "b"]


def compressed(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(1000), compression="gzip")


def larger_than_the_file(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**12,), "f4")  # never written: no storage


HOSTILE = [
    external_storage,
    external_link,
    soft_link,
    virtual,
    group,
    variable_strings,
    compressed,
    larger_than_the_file,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_is_not_plain_numbers_in_the_file_is_refused_before_it_is_read(tmp_path, make):
    path, secret = tmp_path / "hostile.h5", tmp_path / "secret.h5"
    secret.write_bytes(b"1234")
    make(path, secret)
    secret.unlink()
    with hdf5.Reader(path) as reader, pytest.raises(DamagedError) as error:
        reader.array("x")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("data", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_not_hdf5_is_damaged(tmp_path, data):
    path = tmp_path / "file.h5"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="not a readable HDF5 file"):
        hdf5.Reader(path)


def test_every_truncation_of_a_file_ends_in_a_sentence(tmp_path):
    data = b"".join(hdf5.build(ARRAYS).pieces())
    path = tmp_path / "file.h5"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedError), hdf5.Reader(path) as reader:
            for name in ARRAYS:
                reader.array(name)
