import errno

import h5py
import numpy as np
import pytest
from hostile import MAKERS, REACHES_OUT, put
from watching import watching

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
    data = b"".join(image)
    assert data == b"".join(hdf5.build(ARRAYS, deferred=deferred))
    path = tmp_path / "file.h5"
    path.write_bytes(data)
    with hdf5.Reader(path) as reader:
        assert reader.names() == sorted(ARRAYS)
        np.testing.assert_array_equal(reader.array("a"), ARRAYS["a"])
        np.testing.assert_array_equal(reader.map("a"), ARRAYS["a"])
        assert hdf5.to_strings(reader.array("words")) == ("ant", "Blüte", "not\udcffutf-8", "")
        assert reader.json("json") == {"ä": [1, None]}
        assert reader.array("empty").shape == (0, 32)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("read", [hdf5.Reader.array, hdf5.Reader.map, hdf5.Reader.json])
def test_what_is_not_plain_numbers_in_the_file_is_refused_before_it_is_read(tmp_path, make, read):
    path, elsewhere = tmp_path / "hostile.h5", tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(path, "x", make, elsewhere / "secret.h5")
    with (
        watching(elsewhere) as opened,
        hdf5.Reader(path) as reader,
        pytest.raises(DamagedError) as error,
    ):
        read(reader, "x")
    assert str(path) in str(error.value)
    assert opened == []


def test_where_the_file_system_has_no_memory_maps_what_would_be_mapped_is_read(
    tmp_path, monkeypatch
):
    def refuse(*given, **options):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np, "memmap", refuse)
    (tmp_path / "file.h5").write_bytes(b"".join(hdf5.build(ARRAYS)))
    with hdf5.Reader(tmp_path / "file.h5") as reader:
        np.testing.assert_array_equal(reader.map("a"), ARRAYS["a"])


@pytest.mark.parametrize("make", REACHES_OUT, ids=lambda make: make.__name__)
def test_the_watch_sees_what_h5py_alone_opens(tmp_path, make):
    put(tmp_path / "hostile.h5", "x", make, tmp_path / "secret.h5")
    with watching(tmp_path) as opened, h5py.File(tmp_path / "hostile.h5") as file:
        file["x"][()]
    assert "secret.h5" in opened


@pytest.mark.parametrize("data", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_not_hdf5_is_damaged(tmp_path, data):
    path = tmp_path / "file.h5"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="not a readable HDF5 file"):
        hdf5.Reader(path)


def test_every_truncation_of_a_file_ends_in_a_sentence(tmp_path):
    data = b"".join(hdf5.build(ARRAYS))
    path = tmp_path / "file.h5"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedError), hdf5.Reader(path) as reader:
            for name in ARRAYS:
                reader.array(name)
