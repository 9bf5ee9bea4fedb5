from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError, UsageError
from pipeline.trunks.sources.containers import kind_of


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def arrays() -> bytes:
    made = io.BytesIO()
    np.savez(made, a=np.zeros(2))
    return made.getvalue()


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "then"),
    [
        (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "an HDF5 file, as Keras writes", "port the network"),
        (b"\x1c\0\0\0TFL3" + b"0" * 99, "a TensorFlow Lite model", "port the network"),
        (b"\x08\x08\x12\x07pytorch\x1a\x032.0", "an ONNX graph", "model.state_dict()"),
        (b"\x08\x01\x12\x99", "a TensorFlow SavedModel", "port the network"),
        (arrays(), "a file of NumPy arrays", "torch.from_numpy"),
        (zipped("config.json", "metadata.json", "model.weights.h5"), "a Keras model", "port the"),
        (zipped("m/archive_format", "m/x.json"), "a program of torch.export", "torch.export.load"),
        (zipped("notes.txt"), "a ZIP archive", "Unpack it"),
        (tarred(), "a tar archive", "Unpack it"),
        (gzip.compress(b"x", mtime=0), "compressed by gzip", "Unpack it"),
        (pickle.dumps({"a": 1}), "a Python pickle that torch.save did not write", "was run"),
        (b"<!DOCTYPE html><html>", "a web page", "download that failed"),
        (b"\xef\xbb\xbf\n <?xml version", "a web page", "download that failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer", "git lfs pull"),
        (b"GGUF\x03", "a GGUF file", "model.state_dict()"),
        (b'{"metadata": {}}', "JSON", "lies beside it"),
        (b"\x08", "of no known kind", "model.state_dict()"),
    ],
)  # fmt: skip
def test_what_is_no_weights_file_is_named_as_what_it_is_whatever_its_ending(
    tmp_path: Path, content: bytes, what: str, then: str
) -> None:
    for name in ("w.pth", "w.SAFETENSORS", "w"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PipelineError) as caught:
            kind_of(tmp_path / name)
        assert f"is {what}" in str(caught.value) and then in str(caught.value)


def test_torchscript_has_a_sentence_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    path.write_bytes(zipped("s/data.pkl", "s/constants.pkl", "s/code/__torch__.py", "s/version"))
    with pytest.raises(PipelineError) as caught:
        kind_of(path)
    text = str(caught.value)
    assert "is TorchScript" in text and "torch.jit.load('s.pt').state_dict()" in text
    assert "weights_only" not in text


def test_files_of_torch_save_are_told_by_content(tmp_path: Path) -> None:
    state = nn.Linear(2, 2).state_dict()
    for new in (True, False):
        for protocol in (2, 4):
            torch.save(state, tmp_path / "w", pickle_protocol=protocol,
                       _use_new_zipfile_serialization=new)  # fmt: skip
            assert kind_of(tmp_path / "w") == "torch"


def test_folders_of_other_tools_are_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UsageError, match="is a TensorFlow SavedModel"):
        kind_of(tmp_path)
    (tmp_path / "saved_model.pb").rename(tmp_path / ".metadata")
    with pytest.raises(UsageError, match=r"torch\.distributed\.checkpoint.*dcp_to_torch_save"):
        kind_of(tmp_path)


def test_empty_and_truncated_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.touch()
    with pytest.raises(PipelineError, match="cannot be read: it is empty"):
        kind_of(path)
    path.write_bytes(zipped("w/data.pkl")[:-9])
    with pytest.raises(PipelineError, match="its end is missing"):
        kind_of(path)


def test_a_changed_byte_is_found_where_checksums_were_written(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for checked in (True, False):
        torch.serialization.set_crc32_options(checked)
        try:
            torch.save({"a": torch.ones(5000)}, path)
        finally:
            torch.serialization.set_crc32_options(True)
        assert kind_of(path) == "torch"
    torch.save({"a": torch.ones(5000)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match=r"its part w/data/0 is damaged\. Copy or download"):
        kind_of(path)
