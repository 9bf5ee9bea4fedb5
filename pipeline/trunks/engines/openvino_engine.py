"""OpenVINO on a CPU as an `Engine`: a thread and a few images for each core, never waiting.

PyTorch spreads each layer of one batch over all cores, which wait for each other at its end, and
for the threads that decode. Here every core runs a small batch of its own from end to end.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.store.atomic import write_bytes
from pipeline.trunks.engines import openvino_import
from pipeline.trunks.engines.engine import as_array
from pipeline.trunks.spec import FeatureKey, installed

if TYPE_CHECKING:
    import torch

    from pipeline.trunks.feature_net import FeatureNet

#: Images that one stream takes at once: their activations stay in a core's cache.
PIECE = 4
#: Largest relative error (L2) of a converted network in float32; beyond it it is not used.
TOLERANCE = 1e-3
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class ConversionError(PipelineError):
    """OpenVINO cannot run this network, or not as PyTorch does."""


def available() -> bool:
    """Say whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def executed(compiled: Any) -> str:
    """Return the precision that a compiled model runs in; what was asked for is only a hint.

    It is the model's own word, and at least one of its layers must run in it.
    """
    said = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    layers = {
        str(layer.get_rt_info()["runtimePrecision"].astype(str))
        for layer in compiled.get_runtime_model().get_ops()
        if "runtimePrecision" in layer.get_rt_info()
    }
    return next((p for p, hint in _HINTS.items() if hint == said and hint in layers), "fp32")


@cache
def computes(precision: str) -> str:
    """Return the precision in which this machine runs a small convolution that asks for one."""
    openvino = openvino_import.openvino()
    ops = openvino.opset13
    pixels = ops.parameter([1, 16, 16, 16], np.float32)
    weights = ops.constant(np.ones((16, 16, 3, 3), np.float32))
    product = ops.convolution(pixels, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([product], [pixels])
    hint = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    core = openvino.Core()
    return executed(core.compile_model(model, "CPU", hint))


class OpenVINOEngine:
    """A converted network on a CPU, in as many streams as there are cores, two at least.

    A batch is cut into pieces of `PIECE` images, each of which one thread computes from end to
    end, so that rows do not depend on which stream took them.

    Args:
        model: from `converted`.
        precision: `fp32` or `bf16`.
        cores: that the process may use.
    """

    def __init__(self, model: Any, *, precision: str, cores: int):
        openvino = openvino_import.openvino()
        self.name = "openvino-cpu"
        self.notes: list[str] = []
        streams = max(2, cores)
        _, side, _, channels = model.input(0).partial_shape.get_max_shape()
        model.reshape([PIECE, side, side, channels])
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "NUM_STREAMS": str(streams),
                "INFERENCE_NUM_THREADS": str(streams),
                "ENABLE_CPU_PINNING": "NO",  # decoding threads want the same cores
            },
        )
        self.precision = executed(compiled)
        if self.precision != precision:
            self.notes.append(
                f"OpenVINO computes in {self.precision} on this CPU, which has no {precision}."
            )
        self.shape = tuple(compiled.output(0).shape)[1:]
        self.idle = deque(compiled.create_infer_request() for _ in range(2 * streams))
        #: Request, its piece (kept alive: it is read in place), and where which rows go.
        self.running: deque[tuple[Any, np.ndarray, np.ndarray, int]] = deque()

    def run(self, batches: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Yield float32 [B, …] for each uint8 batch [B, 3, S, S], one batch behind."""
        started: deque[np.ndarray] = deque()
        try:
            for crops in batches:
                started.append(self._start(crops))
                if len(started) > 1:
                    yield self._finish(started.popleft())
            while started:
                yield self._finish(started.popleft())
        finally:
            while self.running:
                self._finish_first()

    def _start(self, crops: torch.Tensor) -> np.ndarray:
        images = as_array(crops)
        rows = np.empty((len(images), *self.shape), np.float32)
        for start in range(0, len(images), PIECE):
            piece = images[start : start + PIECE]
            if spare := PIECE - len(piece):
                piece = np.concatenate([piece, np.zeros((spare, *piece.shape[1:]), "u1")])
            if not self.idle:
                self._finish_first()
            request = self.idle.popleft()
            self.running.append((request, piece, rows, start))
            request.start_async({0: piece}, share_inputs=True)
        return rows

    def _finish(self, rows: np.ndarray) -> np.ndarray:
        while any(wanted is rows for _, _, wanted, _ in self.running):
            self._finish_first()
        return rows

    def _finish_first(self) -> None:
        """Wait for the piece that was started first, and put its rows where they belong."""
        request, _, rows, start = self.running.popleft()
        self.idle.append(request)
        try:
            request.wait()
        except RuntimeError as error:
            raise PipelineError(
                f"OpenVINO failed: {str(error).splitlines()[0]} Give --engine torch."
            ) from error
        part = rows[start : start + PIECE]
        part[:] = request.get_output_tensor(0).data[: len(part)]


def place(key: FeatureKey, folder: Path) -> Path:
    """Return where a converted network is kept."""
    return folder / f"{key.fingerprint}.ov"


def converted(net: Callable[[], FeatureNet], key: FeatureKey, *, folder: Path) -> Any:
    """Return a network as an OpenVINO model of uint8 NHWC input, kept where there is a cache.

    Args:
        net: makes the network, where it has to be converted.
        key: what its rows depend on; names the file.
        folder: where converted models are kept.

    Raises:
        ConversionError: OpenVINO cannot convert it, or the result differs from PyTorch's.
    """
    openvino = openvino_import.openvino()
    path = place(key, folder)
    made_by = {**installed(), "openvino": version("openvino")}
    kept = _read(path, made_by)
    if kept is None:
        kept = _convert(net().eval(), key.preprocess.crop)
        if folder.parent.is_dir():  # a command that only reads makes no cache
            with suppress(PipelineError):  # on a full disk the next commit tells
                write_bytes(path, _pack(*kept, made_by), what="the compiled trunk")
    return openvino.Core().read_model(*kept)


def _convert(net: FeatureNet, size: int) -> tuple[bytes, bytes]:
    """Return a network's topology and weights, checked against PyTorch."""
    import torch

    openvino = openvino_import.openvino()
    generator = torch.Generator().manual_seed(0)
    example = torch.randint(0, 256, (PIECE, 3, size, size), generator=generator)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            # as a function, its weights are constants: tracing hundreds of modules takes longer
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                lambda x: net(x), example[:2].float(), check_trace=False
            )
            model = openvino.convert_model(traced, input=[PIECE, 3, size, size])
            want = [part.numpy() for part in net.parts(example.float())]
        steps = openvino.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8)
        steps.input().tensor().set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        model = steps.build()
        with tempfile.TemporaryDirectory() as home:
            try:
                openvino.serialize(model, f"{home}/model.xml", f"{home}/model.bin")
            except RuntimeError as error:  # it says nothing of the disk
                place = tempfile.gettempdir()
                raise OSError(
                    f"its files cannot be written to {place}: set TMPDIR to a disk with room"
                ) from error
            parts = Path(home, "model.xml").read_bytes(), Path(home, "model.bin").read_bytes()
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        got = compiled({0: example.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()})[0]
    except Exception as error:  # the converter raises nearly anything
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ConversionError(f"OpenVINO cannot run this trunk ({reason}).") from error
    ends = np.cumsum([part.shape[1] for part in want])[:-1]
    off = max(_relative(a, b) for a, b in zip(np.split(got, ends, 1), want, strict=True))
    if not np.isfinite(off):
        raise ConversionError(
            "OpenVINO cannot be compared with PyTorch on this trunk: features of the test pictures "
            "are not finite."
        )
    if off > TOLERANCE:
        raise ConversionError(
            f"OpenVINO computes this trunk differently ({off:.1g} of its length)."
        )
    return parts


def _relative(got: np.ndarray, want: np.ndarray) -> float:
    """Return ‖got − want‖ / ‖want‖ over what PyTorch finds finite; inf where that is not half.

    It is inf, too, where OpenVINO alone finds something not finite.
    """
    finite = np.isfinite(want)
    if finite.mean() < 0.5 or not np.isfinite(got[finite]).all():
        return np.inf
    got, want = got[finite].astype(np.float64), want[finite].astype(np.float64)  # squares fit
    return float(np.linalg.norm(got - want) / max(float(np.linalg.norm(want)), 1e-12))


def _pack(topology: bytes, weights: bytes, made_by: dict[str, str]) -> bytes:
    """Return one file: a line of JSON, then both parts, whose sha256 that line holds."""
    sha = hashlib.sha256(topology + weights).hexdigest()
    head = {"made_by": made_by, "sha256": sha, "topology": len(topology)}
    return json.dumps(head).encode() + b"\n" + topology + weights


def _read(path: Path, made_by: dict[str, str]) -> tuple[bytes, bytes] | None:
    """Return what `_pack` packed; None where it is missing, damaged or of other versions."""
    try:
        line, _, body = path.read_bytes().partition(b"\n")
        head = json.loads(line)
        same = head["made_by"] == made_by and head["sha256"] == hashlib.sha256(body).hexdigest()
        return (body[: head["topology"]], body[head["topology"] :]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not whole: it can be made again
