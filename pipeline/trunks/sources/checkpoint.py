"""Checkpoints: the sets of tensors in a weights file, read without running anything in it."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.trunks.sources.containers import is_safetensors

#: Where training scripts keep the weights inside their checkpoint, the first that is there first:
#: an average in front of the model that it is of, as timm's `load_state_dict` takes it. timm takes
#: neither a teacher nor a student. The teacher is taken: in DINO, iBOT and DINOv2 it is the
#: student's average, and what is evaluated (Caron et al. 2021, section 3.1).
USUAL = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "teacher")
#: Where classes of networks are defined.
_NETWORKS = ("torchvision.models.", "timm.models.", "torch.nn.modules.container.")
_DEPTH = 3  # of mappings in mappings

#: A set of tensors: by name, in the file's order.
Tensors = Mapping[str, Tensor]


def read_sets(path: Path) -> dict[str, Tensors]:
    """Return the sets of tensors in a weights file, the one that is usually meant first.

    Args:
        path: what `torch.save` wrote (read with `weights_only=True`), or safetensors.

    Returns:
        Keys that lead to a set, joined by dots and empty for the file itself, to its tensors.

    Raises:
        UsageError: there is no such file.
        PipelineError: it is of another kind, it is damaged, it holds no tensors by name, or
            something whose reading could run code; nothing of it was run.
    """
    safe = is_safetensors(path)
    try:
        if safe:
            return {"": load_file(path)}
        held = _loaded(path)
    except pickle.UnpicklingError as error:
        raise PipelineError(_refusal(path, str(error))) from error
    except SafetensorError as error:
        raise PipelineError(f"Weights file {path} is no safetensors file: {error}.") from error
    except MemoryError as error:
        raise PipelineError(f"Weights file {path} needs more memory than there is.") from error
    except Exception as error:  # whatever the bytes of a damaged pickle make torch do
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0].rstrip(".")
        reason = reason or "it ends too early"
        raise PipelineError(f"Weights file {path} cannot be read: {reason}.") from error
    if not isinstance(held, Mapping):
        raise PipelineError(
            f"Weights file {path} holds a {type(held).__name__} and no tensors by name; save "
            "model.state_dict()."
        )
    if sets := dict(_sets(held, (), set())):
        return sets
    keys = ", ".join(str(key)[:50] for key in list(held)[:10]) or "it has none"
    arrays = any(isinstance(value, _Unread) for value in held.values())
    hint = " with torch.from_numpy around each NumPy array" * arrays
    raise PipelineError(
        f"Weights file {path} holds no tensors by name; save model.state_dict(){hint}. Keys: "
        f"{keys}."
    )


def _loaded(path: Path) -> Any:
    serialization = torch.serialization
    own = serialization.get_safe_globals()
    serialization.clear_safe_globals()  # what others allowed in this process is not closed
    try:
        with serialization.safe_globals(_stand_ins()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's protocol; what fails raises
            with path.open("rb") as file:  # of a path, torch would look at the ending
                return torch.load(file, map_location="cpu", weights_only=True)
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(own)


def _sets(
    held: Mapping[Any, Any], keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, Tensors]]:
    """Yield the sets in a mapping, each once: in the usual keys, itself, in the other keys."""
    if id(held) in seen or len(keys) > _DEPTH:
        return
    seen.add(id(held))
    inner = [name for name in held if isinstance(name, str) and isinstance(held[name], Mapping)]
    usual = [name for name in USUAL if name in inner]
    for name in usual:
        yield from _sets(held[name], (*keys, name), seen)
    tensors = {
        k: v.detach() for k, v in held.items() if isinstance(k, str) and isinstance(v, Tensor)
    }
    if tensors:
        yield ".".join(keys), tensors
    for name in inner:
        if name not in usual:
            yield from _sets(held[name], (*keys, name), seen)


def _refusal(path: Path, error: str) -> str:
    """Return the sentence for a file that names what is not on the list."""
    module = "persistent_load" in error  # so are modules named in files from before PyTorch 1.6
    found = re.search(r"GLOBAL\s+(\S+)", error)
    if not (module or found):
        if "Unsupported operand" in error:
            return (
                f"Weights file {path} was written in another pickle protocol than torch.save's "
                "own: save it again without pickle_protocol."
            )
        what = error.partition("WeightsUnpickler error:")[2].strip().split("\n")[0].rstrip(".")
        return f"Weights file {path} cannot be read: {what or 'its pickle is damaged'}."
    name = found[1] if found else "torch.nn.Module"
    if name.startswith("torch.distributed."):
        return (
            f"Weights file {path} is a part of a sharded checkpoint ({name}). Gather the parts "
            "where they were saved, and save the whole network's model.state_dict() as one file."
        )
    if name.endswith("_affine"):  # of whatever module pickle found it in when the file was written
        return (
            f"Weights file {path} holds quantised tensors ({name}): give the weights from before "
            "they were quantised."
        )
    network = module or name.startswith(_NETWORKS)
    what = "a whole pickled network and not its weights" if network else "more than tensors"
    return (
        f"Weights file {path} holds {what} ({name}); it is refused and nothing in it was run. "
        f"Where {name.split('.')[0]} is installed and you trust the file, load it once and save "
        "its tensors alone: torch.save(model.state_dict(), 'weights.pth')."
    )


class _Unread:
    """Stands for what a checkpoint holds beside its tensors, and keeps nothing of it."""

    def __new__(cls, *_: Any, **__: Any) -> _Unread:
        """Take whatever the real thing is made of."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Take whatever the real thing remembers."""


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Return what a `defaultdict` is read into, whatever its default: torch fills only these."""
    return {}


def _empty_list(*_: Any) -> list[Any]:
    """Return what a `deque` is read into."""
    return []


#: What a checkpoint may name besides tensors: a closed list. Nothing of it is imported or made:
#: what stands in its place takes what it is given and does nothing. (NumPy's own constructors can
#: be made to read memory that is not theirs.) Names as `module: names`.
_HARMLESS = """
argparse: Namespace
types: SimpleNamespace
datetime: datetime date time timedelta timezone
decimal: Decimal
uuid: UUID
typing: Any
builtins: list dict tuple frozenset int float str bool bytes slice range getattr
pathlib: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
pathlib._local: Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath
numpy: dtype ndarray bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32
numpy: float64 longdouble complex64 complex128 str_ bytes_ void object_ datetime64 timedelta64
numpy.core.multiarray: scalar _reconstruct
numpy._core.multiarray: scalar _reconstruct
numpy.dtypes: BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType
numpy.dtypes: UInt32DType UInt64DType Float16DType Float32DType Float64DType StrDType ObjectDType
torch.torch_version: TorchVersion
torch.optim.sgd: SGD
torch.optim.adam: Adam
torch.optim.adamw: AdamW
torch.optim.rmsprop: RMSprop
torch.optim.lr_scheduler: StepLR MultiStepLR ExponentialLR CosineAnnealingLR OneCycleLR LambdaLR
torch.nn.modules.loss: CrossEntropyLoss NLLLoss BCELoss BCEWithLogitsLoss MSELoss L1Loss
functools: partial
omegaconf.base: ContainerMetadata Metadata
omegaconf.dictconfig: DictConfig
omegaconf.listconfig: ListConfig
omegaconf.nodes: AnyNode StringNode IntegerNode FloatNode BooleanNode BytesNode PathNode EnumNode
mmengine.logging.history_buffer: HistoryBuffer
pytorch_lightning.callbacks.model_checkpoint: ModelCheckpoint
pytorch_lightning.callbacks.early_stopping: EarlyStopping
"""
#: Other packages' dictionaries.
_DICTIONARIES = """
easydict: EasyDict
addict.addict: Dict
munch: Munch
box.box: Box
yacs.config: CfgNode
fvcore.common.config: CfgNode
mmcv.utils.config: ConfigDict
mmengine.config.config: ConfigDict
ml_collections.config_dict.config_dict: ConfigDict
pytorch_lightning.utilities.parsing: AttributeDict
lightning.pytorch.utilities.parsing: AttributeDict
lightning_fabric.utilities.data: AttributeDict
lightning.fabric.utilities.data: AttributeDict
"""
_STAND_INS: tuple[tuple[str, Any], ...] = (
    (_HARMLESS, _Unread),
    (_DICTIONARIES, OrderedDict),
    ("collections: defaultdict", _empty_dict),
    ("collections: deque", _empty_list),
)


def _stand_ins() -> list[Any]:
    """Return the closed list as torch wants it: what is put in the place of each name."""
    return [
        (put, f"{module}.{name}")
        for lines, put in _STAND_INS
        for module, _, names in (line.partition(": ") for line in lines.strip().split("\n"))
        for name in names.split()
    ]
