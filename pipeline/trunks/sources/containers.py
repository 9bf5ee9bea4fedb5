"""What a weights file is, by its first bytes and never by its ending."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

from torch.serialization import MAGIC_NUMBER

from pipeline.errors import PipelineError, UsageError, nearest

#: Endings that say that a file is meant, in small letters; what the file is its content says.
SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".tar", ".model")
_HEAD = 512  # bytes
_MOST_HEADER = 100 << 20  # bytes of the names in a safetensors file, as its format allows
#: How a file of `torch.save` begins that is no ZIP file, behind two bytes for pickle's protocol.
_LEGACY = pickle.dumps(MAGIC_NUMBER, protocol=2)[2:]

_TENSORFLOW = (
    "Load it in the library that wrote it and port the network to PyTorch, or take the same "
    "network from timm or torchvision."
)
_TORCH = "Save the PyTorch network's own weights: torch.save(model.state_dict(), 'weights.pth')."
_SCRIPT = (
    "It can hold code and is not opened. Save its tensors once, where you trust it: "
    "torch.save(torch.jit.load({name!r}).state_dict(), 'weights.pth')."
)
_EXPORTED = (
    "Save its tensors once, where you trust it: "
    "torch.save(torch.export.load({name!r}).state_dict, 'weights.pth')."
)
_ARRAYS = (
    "Save its arrays as tensors: torch.save({{k: torch.from_numpy(v) for k, v in "
    "numpy.load({name!r}).items()}}, 'weights.pth')."
)
_AGAIN = "Often it is the page of a download that failed: download the file itself."
_UNPACK = "Unpack it and give the weights file in it."
_PICKLE = (
    "Opening it can run any code, so it is refused and nothing in it was run. Where you trust it, "
    "load it once and save its tensors alone: torch.save(model.state_dict(), 'weights.pth')."
)

#: Where a signature stands, the signature, what such a file is, and what to do with it.
_KNOWN = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _TENSORFLOW),
    (4, b"TFL3", "a TensorFlow Lite model", _TENSORFLOW),
    (0, b"\x08\x01\x12", "a TensorFlow SavedModel", _TENSORFLOW),
    (0, b"\x93NUMPY", "a NumPy array", _TORCH),
    (0, b"GGUF", "a GGUF file, as llama.cpp writes", _TORCH),
    (0, b"version https://git-lfs", "a Git LFS pointer", "Fetch what it stands for: git lfs pull."),
    (0, b"<", "a web page or XML", _AGAIN),
    (0, b"{", "JSON", "Give the file with the tensors, which lies beside it."),
    (0, b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (0, b"BZh", "compressed by bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
)  # fmt: skip
#: Endings of what has no signature.
_NAMED = (
    (".pb", "a TensorFlow graph", _TENSORFLOW),
    (".index", "the index of a TensorFlow checkpoint", _TENSORFLOW),
    (".meta", "the graph of a TensorFlow checkpoint", _TENSORFLOW),
    (".msgpack", "a Flax checkpoint", _TENSORFLOW),
)
_SAFETENSORS, _TORCH_SAVE = "safetensors", "torch"


def is_safetensors(path: Path) -> bool:
    """Tell whether a file is a safetensors file, for which `kind_of` found no fault."""
    return kind_of(path) == _SAFETENSORS


def kind_of(path: Path) -> str:
    """Return `torch` for a file of `torch.save`, `safetensors` for one of these.

    Raises:
        UsageError: there is no such file.
        PipelineError: it is something else, with what it is and what to do.
    """
    _check_exists(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not head:
        raise _unreadable(path, "it is empty")
    size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 1 < size <= _MOST_HEADER:
        return _SAFETENSORS
    if _LEGACY in head[:32]:
        return _TORCH_SAVE
    found = _zip(path) if head.startswith(b"PK") else _other(path, head)
    if found is None:
        return _TORCH_SAVE
    what, then = found
    raise PipelineError(
        f"Weights file {path} is {what}; weights are a file of torch.save or safetensors. "
        f"{then.format(name=path.name)}"
    )


def _unreadable(path: Path, why: str) -> PipelineError:
    return PipelineError(f"Weights file {path} cannot be read: {why}. Copy or download it again.")


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    endings = ", ".join(SUFFIXES[:3])
    if not path.is_dir():
        exists = path.exists()
        near = [] if exists or not path.parent.is_dir() else _weights_in(path.parent)
        raise UsageError(
            f"Weights file {path} {'is no regular file' if exists else 'does not exist'}; give a "
            f"file in {endings} or the like.{nearest(path.name, near)}"
        )
    inside = _weights_in(path)
    if (path / "saved_model.pb").exists():
        raise UsageError(f"Weights file {path} is a TensorFlow SavedModel. {_TENSORFLOW}")
    if (path / ".metadata").exists():
        raise UsageError(
            f"Weights file {path} is a folder of torch.distributed.checkpoint. Make one file of "
            "it: torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file)."
        )
    one = f"one of it: {', '.join(inside[:5])}" if inside else f"a file in {endings} or the like"
    raise UsageError(f"Weights file {path} is a folder; give {one}.")


def _weights_in(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    except OSError:
        return []  # only a hint


def _zip(path: Path) -> tuple[str, str] | None:
    """Return what a ZIP file is and what to do with it; None for a file of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = _checksums_kept(archive, path) and archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unreadable(path, "it is damaged, or its end is missing") from error

    def has(*endings: str) -> bool:
        return any(name.endswith(endings) for name in names)

    if has("/constants.pkl") and has("/data.pkl"):
        return "TorchScript, a network as a program (torch.jit.save)", _SCRIPT
    if has("/archive_format", "serialized_exported_program.json"):
        return "a program of torch.export", _EXPORTED
    if has("data.pkl"):
        if damaged:
            raise _unreadable(path, f"its part {damaged} is damaged")
        return None
    if has(".npy"):
        return "a file of NumPy arrays (.npz)", _ARRAYS
    if has("model.weights.h5"):
        return "a Keras model", _TENSORFLOW
    return "a ZIP archive", _UNPACK


def _checksums_kept(archive: zipfile.ZipFile, path: Path) -> bool:
    """Tell whether `torch.save` wrote checksums; without, they are 0. `torch.load` reads none."""
    parts = archive.infolist()
    stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
    size = sum(part.file_size for part in parts)
    return stored and size <= path.stat().st_size and any(part.CRC for part in parts)


def _other(path: Path, head: bytes) -> tuple[str, str]:
    """Return what a file is and what to do with it."""
    head, text = head.ljust(3, b"\0"), head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, signature, what, then in _KNOWN:
        if head[start:].startswith(signature) or (not start and text.startswith(signature)):
            return what, then
    if head[0] == 8 and 3 <= head[1] <= 32 and head[2] in b"\x12\x3a":  # ir_version, producer
        return "an ONNX graph", _TORCH
    if head[0] == 0x80 and head[1] <= pickle.HIGHEST_PROTOCOL:
        return "a Python pickle that torch.save did not write", _PICKLE
    for ending, what, then in _NAMED:
        if path.name.lower().endswith(ending):
            return what, then
    if ".data-" in path.name:
        return "a part of a TensorFlow checkpoint", _TENSORFLOW
    return "of no known kind", _TORCH
