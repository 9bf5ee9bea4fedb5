"""From a head or model to a folder that runs without this package, checked after writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.arguments import path_of
from pipeline.errors import PipelineError
from pipeline.extraction.crashes import noted
from pipeline.extraction.scan import of_table
from pipeline.finetuning.model import Model, Predictor, open_predictor
from pipeline.heads import resolve
from pipeline.heads.head import Head
from pipeline.images.datasets.builtin import builtin
from pipeline.images.decoding.decode import decode
from pipeline.images.decoding.quiet import quiet
from pipeline.images.decoding.reading import admit, read_unknown
from pipeline.images.names import safe
from pipeline.inference.exporting import onnx_file, openvino_file, safetensors_file
from pipeline.inference.exporting.graph import linear_of, require
from pipeline.inference.exporting.printed import check_lines
from pipeline.inference.exporting.readme import code_of, readme, reads_pictures
from pipeline.inference.options import ExportOptions
from pipeline.progress import Progress, Silent
from pipeline.store.atomic import commit_folder
from pipeline.store.cache import Cache

#: Largest difference of a probability between what is written and Headstart in fp32.
TOLERANCE = 1e-3
#: The same where resizing is inside: its kernels round differently, by up to two grey levels.
TOLERANCE_RESIZED = 0.02
#: Images that an export is checked on.
CHECKED = 16
INFO = "headstart.json"


@dataclass(frozen=True, eq=False)
class Export:
    """What `export` did.

    Attributes:
        predictor: that was exported.
        why: it was taken, where nobody named it.
        folder: that was written.
        info: `headstart.json`.
        sizes: file to its bytes.
    """

    predictor: Predictor
    why: str
    folder: Path
    info: dict[str, Any]
    sizes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**self.info, "path": str(self.folder), "why": self.why, "files": self.sizes}


def export(
    model: Head | Model | str | Path | None = None,
    format: str = "onnx",
    *,
    output: str | Path | None = None,
    with_preprocess: bool = False,
    head_only: bool = False,
    cache: str | Path | None = None,
) -> Path:
    """Write a head or model as a folder that runs without this package, and return the folder.

    Args:
        model: a `Head` or `Model`, its id or folder, a kind of head; the best of the current
            table without it. Heads must be linear.
        format: `onnx`, `openvino` or `safetensors`.
        output: the folder; None for one named by trunk, id and format, here.
        with_preprocess: resizing and cropping inside, for images of any size.
        head_only: only what goes on top of cached features.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The folder: the file, `headstart.json` and a README whose lines run without this package.

    Raises:
        UsageError: an option that cannot be right; a `ValueError` too.
        PipelineError: there is no such head or model, it is not linear, what was written differs
            from the original, or the folder holds other files.
    """
    options = ExportOptions.of(locals())
    options.check()
    store = Cache.at(cache)
    return export_predictor(resolve.find(store, model), options, store).folder


def export_predictor(
    artefact: resolve.Artefact,
    options: ExportOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Export:
    """Do what `export` does and report on it."""
    progress = progress or Silent()
    options.check()
    require(options.format)
    predictor = open_predictor(artefact, cache)
    linear_of(predictor)  # says why not
    trunk = safe(predictor.info.trunk.replace("/", "-"))
    folder = path_of(options.output or f"{trunk}-{predictor.id}-{options.format}", "--output")
    _check_place(folder)
    progress.start("exporting", 0)
    inputs, want, source = _examples(cache, predictor, options, progress)
    info = _info(predictor, options)

    def write(into: Path) -> None:
        if options.format == "safetensors":
            library = safetensors_file.save(predictor, into, head_only=options.head_only)
            got = safetensors_file.probabilities(predictor, into, library, inputs)
            if library is not None:
                info["library"] = library
        else:
            form: Any = onnx_file if options.format == "onnx" else openvino_file
            form.save(predictor, into, info, options)
            got = form.probabilities(into, inputs)
        difference = float(np.abs(got - want).max())
        allowed = TOLERANCE_RESIZED if options.with_preprocess else TOLERANCE
        info["checked"] = {
            "on": source, "images": len(inputs), "difference": difference, "tolerance": allowed,
        }  # fmt: skip
        if not difference <= allowed:
            raise PipelineError(
                f"The {options.format} file gives other probabilities than the {predictor.title}: "
                f"they differ by up to {difference:.3g} on {len(inputs)} of {source}, and "
                f"{allowed:g} is allowed. Nothing was kept. Try another --format."
            )
        if reads_pictures(info):
            (into / INFO).write_text(json.dumps(info))  # the lines read it
            info["checked"]["pictures"] = check_lines(
                code_of(info), into, predictor.preprocess.resize, _wanted(predictor),
                allowed=allowed,
            )  # fmt: skip
        (into / INFO).write_text(json.dumps(info, indent=1, ensure_ascii=True) + "\n")
        (into / "README.md").write_text(readme(info), encoding="utf-8", errors="replace")

    commit_folder(folder.absolute(), write, what="the export")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Export(predictor, artefact.why, folder, info, sizes)


def _check_place(folder: Path) -> None:
    """Refuse to replace anything that no export wrote."""
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder} is a file; name a folder with --output.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INFO).is_file():
        raise PipelineError(
            f"The folder {folder} holds other files; name a new or empty one with --output."
        )


def _info(predictor: Predictor, options: ExportOptions) -> dict[str, Any]:
    linear, calibration = linear_of(predictor), predictor.info.calibration
    whole = "images" if options.with_preprocess else "crops"
    return {
        "title": predictor.title[0].upper() + predictor.title[1:],
        "kind": predictor.kind,
        "id": predictor.id,
        "format": options.format,
        "trunk": predictor.info.trunk,
        "classes": list(predictor.classes),
        "input": "features" if options.head_only else whole,
        "preprocess": predictor.preprocess.to_json(),
        "dim": int(linear.weight.shape[1]),
        "l2": linear.l2,
        "temperature": predictor.temperature,
        "calibration": calibration and calibration.to_json(),
        **({"opset": onnx_file.OPSET} if options.format == "onnx" else {}),
        "versions": {name: version(name) for name in ("headstart", "torch")},
    }


def _examples(
    cache: Cache, predictor: Predictor, options: ExportOptions, progress: Progress
) -> tuple[list[np.ndarray], np.ndarray, str]:
    """Return inputs, the probabilities [N, K] that they should give, and what they are."""
    table = resolve.table_of(cache, predictor.info)
    if options.head_only:
        if table is not None and predictor.kind == "head":
            rows = _spread(np.arange(len(table.labels)), 64)
            features, source = np.asarray(table.features[rows]), "the table's features"
        else:
            shape = (64, linear_of(predictor).weight.shape[1])
            features = np.random.default_rng(0).random(shape, np.float32)
            source = "random features"
        want = predictor.probabilities(predictor.classify(features))
        return list(features), want, source
    pictures, source = [], "the table's images"
    if table is not None:
        images = of_table(table)
        unseen = [row for row, split in enumerate(table.splits) if split != "train"]
        rows = _spread(np.array(unseen or range(len(table.paths))), CHECKED)
        pictures = _pictures([images.file(row) for row in rows], cache, progress)
    if not pictures:
        source = "the built-in digits"
        digits = sorted(builtin("digits", cache.data).rglob("*.png"))
        spread = digits[:: len(digits) // CHECKED]
        pictures = _pictures([str(path) for path in spread], cache, progress)
    crops = torch.stack([predictor.preprocess.apply(picture) for picture in pictures])
    given = pictures if options.with_preprocess else list(crops)
    inputs = [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in given]
    return inputs, _probabilities(predictor, crops), source


def _probabilities(predictor: Predictor, crops: torch.Tensor) -> np.ndarray:
    engine = predictor.fp32_engine("cpu")
    (features,) = engine.run([crops])
    return predictor.probabilities(predictor.logits(features, engine))


def _wanted(predictor: Predictor) -> Callable[[list[bytes]], np.ndarray]:
    """Return what gives the probabilities of image files as `predict` does, in fp32."""

    def wanted(files: list[bytes]) -> np.ndarray:
        with quiet():
            crops = [predictor.preprocess.apply(decode(data)) for data in files]
        return _probabilities(predictor, torch.stack(crops))

    return wanted


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """Return so many rows at most, evenly spread over all."""
    picked: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return picked


def _pictures(paths: list[str], cache: Cache, progress: Progress) -> list[torch.Tensor]:
    """Return those that can be read, uint8 [3, H, W]."""
    pictures = []
    with noted(cache, progress) as guard, quiet():
        for path in paths:
            try:
                data = read_unknown(path)
                admit(data, None, path, guard=guard, changed=AssertionError())
                pictures.append(decode(data))
            except (PipelineError, OSError):
                continue  # moved since, or on a disk that is gone: others serve as well
    return pictures
