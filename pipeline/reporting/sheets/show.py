"""A contact sheet of images: the classes, the views that a trunk sees, or predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.arguments import path_of
from pipeline.cores import usable_cores
from pipeline.errors import PipelineError, UsageError
from pipeline.extraction import scan
from pipeline.extraction.crashes import noted
from pipeline.extraction.options import ExtractOptions
from pipeline.heads import predictions, resolve
from pipeline.heads.head import Head
from pipeline.heads.resolve import Artefact
from pipeline.images import thumbnails
from pipeline.images.datasets.imageset import ImageSet
from pipeline.images.decoding.reading import Guard
from pipeline.images.names import counted, safe, shown
from pipeline.images.preprocess import Preprocess
from pipeline.images.sources.address import is_data
from pipeline.images.thumbnails import Picture
from pipeline.images.views import known
from pipeline.progress import Progress, Silent
from pipeline.reporting.options import ShowOptions
from pipeline.reporting.sheets import contents, sheet
from pipeline.reporting.sheets.contents import Content
from pipeline.store.cache import Cache
from pipeline.store.outputs import DRAWN, output_path, write_output
from pipeline.store.result_records import HeadInfo
from pipeline.store.table import FeatureTable
from pipeline.trunks import spec

if TYPE_CHECKING:
    from pipeline.finetuning.model import Model

#: Pixels of a picture's cell; of many classes, and of crops at most.
SIDE, SMALL, CROP = 144, 112, 224
#: What a sheet is called where a file that is none stands in its way.
SHEET = "a sheet of `pipeline show`"


@dataclass(frozen=True, eq=False)
class Shown:
    """What `show` drew. Equal only when identical.

    Attributes:
        path: of the PNG.
        kind: one of `KINDS`.
        images: that the content's rows are of.
        content: of the sheet.
        reasons: for each item of the content, why it has no picture; empty where it has one.
        notes: sentences for the person.
    """

    path: Path
    kind: str
    images: ImageSet
    content: Content
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        images = []
        reasons = iter(self.reasons)
        for heading, items in self.content.sections:
            for item in items:
                label = int(self.images.labels[item.row])
                images.append({
                    "path": self.images.paths[item.row],
                    "label": self.images.classes[label] if label >= 0 else None,
                    "split": self.images.splits[item.row] if self.images.splits else "",
                    "section": heading,
                    **dict(item.facts),
                    "missing": next(reasons) or None,
                })  # fmt: skip
        return {
            "sheet": str(self.path),
            "kind": self.kind,
            "on": self.images.name,
            "root": str(self.images.root),
            "title": self.content.title,
            "images": images,
            "notes": [*self.content.notes, *self.notes],
        }


def show(
    what: FeatureTable | Head | Model | str | Path | None = None,
    *,
    kind: str | None = None,
    split: str | None = None,
    classes: tuple[str, ...] = (),
    count: int | None = None,
    seed: int | None = None,
    augment: str | None = None,
    wrong: bool = False,
    data: str | Path | None = None,
    output: str | Path | None = None,
    workers: int | None = None,
    cache: str | Path | None = None,
) -> Path:
    """Draw a contact sheet and return the path of the PNG.

    Args:
        what: a table, its file, name or id; a `Head` or `Model`, its id or folder, a kind of head;
            a folder of images, a CSV or TSV file, or a built-in set; the current table without it.
        kind: `classes`, `views` or `predictions`; None for predictions of a head or model, and
            else the classes.
        split: `train`, `val`, `test` or `all`; None for what the kind is about: all images'
            classes, the views of train, the predictions of the last of val and test.
        classes: names; none for all.
        count: images of each class, of all, or of the right and the wrong each; None for what
            fits the kind.
        seed: of a random choice, from 0; None for the first images, or the surest mistakes.
        augment: policy of the views, one of `pipeline.images.views.POLICIES`; None for the one that
            a model learned from, and else `crop+mirror`.
        wrong: mistakes alone.
        data: folder in which the images of a table lie now; None for where they were.
        output: the PNG to write; None for one in the cache.
        workers: decoding threads; None for the cores that the process may use.
        cache: the cache's folder; else `$PIPELINE_CACHE`, else `./cache`.

    Returns:
        The path of the PNG.

    Raises:
        UsageError: an option that cannot be right, or is not for what is shown.
        PipelineError: there is nothing to show, or a file that is no sheet stands in its way.

    Example:
        >>> import pipeline
        >>> pipeline.show(pipeline.extract("digits"), count=4)  # doctest: +SKIP
    """
    return draw_sheet(what, ShowOptions.of(locals()), Cache.at(cache)).path


def draw_sheet(
    what: FeatureTable | Head | Model | str | Path | None,
    options: ShowOptions,
    cache: Cache,
    progress: Progress | None = None,
) -> Shown:
    """Do what `show` does and report on it."""
    for name in ("path", "folder"):  # of a table; of a head or model
        what = getattr(what, name, what)
    options.check()
    word = what if isinstance(what, str) and is_data(what) else None
    if what is not None and word is None:
        word = os.fsdecode(path_of(what, "What to show"))
    progress = progress or Silent()
    artefact = None if word is None else resolve.recognise(cache, word)
    kind = options.kind or ("classes" if artefact is None else "predictions")
    if options.wrong and kind != "predictions":
        raise UsageError("--wrong is for predictions: name a head or model, or --kind predictions.")
    if options.augment is not None and kind != "views":
        raise UsageError("--augment says which views are shown: add --kind views.")
    table = _table(cache, word, artefact)
    if table is None:
        assert word is not None
        if options.data is not None:
            raise UsageError("--data says where the images of a table lie; this is no table.")
        if kind == "predictions":
            raise UsageError(
                f"There are no predictions of {shown(word)}: name a head, a model or a table."
            )
        images = scan.gather(word, ExtractOptions(), cache, progress)
    else:
        images = scan.of_table(table, options.data)
    labels = images.find_classes(options.classes)
    preprocess = None
    if kind == "predictions":
        artefact = artefact or resolve.best(cache, table)
        content = _predictions(images, table, artefact, options, labels)
    elif kind == "views":
        preprocess, trunk = _preprocessing(table, cache)
        split = options.split or ("train" if "train" in images.split_names else None)
        rows = images.rows(split=split, labels=labels)
        content = contents.views(
            images, rows, count=options.count, seed=options.seed, trunk=trunk,
            policy=options.augment or _policy(artefact),
        )  # fmt: skip
    else:
        rows = images.rows(split=options.split, labels=labels)
        content = contents.classes(images, rows, count=options.count, seed=options.seed)
    place = _place(cache, images, kind, artefact, options)
    side = SMALL if content.columns > 8 else SIDE
    if preprocess is not None:
        side = max(SIDE, min(preprocess.crop, CROP))
    with noted(cache, progress) as guard:
        pictures = _pictures(
            images, content, preprocess, side, workers=options.workers, guard=guard,
            progress=progress,
        )  # fmt: skip
    write_output(place, sheet.draw(content, pictures, side=side), mark=DRAWN, what=SHEET)
    reasons = tuple(picture.reason for picture in pictures)
    return Shown(place, kind, images, content, reasons, _notes(artefact, reasons))


def _table(cache: Cache, word: str | None, artefact: Artefact | None) -> FeatureTable | None:
    if artefact is not None:
        info = artefact.kind.read(artefact.folder)
        table = resolve.table_of(cache, info)
        if table is None:
            raise PipelineError(
                f"The table of the {artefact.kind.name} {info.id} is not in the cache "
                f"{cache.root} (any more), and only it says which images were predicted."
            )
        return table
    return cache.open_table() if word is None else resolve.find_table(cache, word)


def _predictions(
    images: ImageSet,
    table: FeatureTable | None,
    artefact: Artefact,
    options: ShowOptions,
    labels: list[int],
) -> Content:
    assert table is not None
    info = artefact.kind.read(artefact.folder)
    name = f"{artefact.kind.name} {info.id}"
    if info.table_id != table.table_id:
        raise UsageError(f"The {name} was not made on {images.name}: name the head or model.")
    stored_splits = predictions.splits(artefact.folder)
    split = options.split or next((one for one in ("test", "val") if one in stored_splits), None)
    if split not in stored_splits:
        have = f"it has those of {', '.join(stored_splits)}" if stored_splits else "it has none"
        raise UsageError(f"The {name} has no stored predictions of {split or 'any split'}: {have}.")
    stored = predictions.read(artefact.folder / f"predictions-{split}.csv", table)
    kept = np.isin(stored.rows, images.rows(split="all", labels=labels))
    if not kept.any():
        raise UsageError(f"No image of {split} is of these classes.")
    probabilities = stored.calibrated(info.calibration_temperature)[kept]
    how = f"{info.clf} on" if isinstance(info, HeadInfo) else "fine-tuned"
    return contents.predictions(
        images, stored.rows[kept], probabilities, count=options.count, seed=options.seed,
        wrong=options.wrong, title=f"{images.name} {split}: {name} ({how} {info.trunk})",
    )  # fmt: skip


def _policy(artefact: Artefact | None) -> str:
    """Return the policy that a head or model learned from, or the one where nothing is said."""
    return known(None if artefact is None else artefact.kind.read(artefact.folder).policy)


def _preprocessing(table: FeatureTable | None, cache: Cache) -> tuple[Preprocess, str]:
    """Return the preprocessing of the table's trunk, or of the one that `extract` would take."""
    if table is not None:
        given = table.provenance
        return Preprocess.from_json(given.preprocess), given.trunk
    options = ExtractOptions()
    facts, _ = spec.resolve(
        options.trunk, options.weights, options.keys, size=options.image_size, memo=cache.memo,
        state_dir=cache.weights,
    )  # fmt: skip
    return facts.preprocess, facts.name


def _pictures(
    images: ImageSet,
    content: Content,
    preprocess: Preprocess | None,
    side: int,
    *,
    workers: int | None,
    guard: Guard,
    progress: Progress,
) -> list[Picture]:
    """Return the picture of each item: whole, or as a trunk with this preprocessing sees it."""
    items, workers = list(content.items), workers or usable_cores()
    progress.start("showing", len(items))
    files = [(images.file(item.row), images.digests[item.row]) for item in items]
    if preprocess is None:
        stream = thumbnails.pictures(files, side=side, workers=workers, guard=guard)
    else:
        numbered = [(*file, item.view or 0) for file, item in zip(files, items, strict=True)]
        stream = thumbnails.views(numbered, preprocess, workers=workers, guard=guard)
    found = []
    for picture in stream:
        rgb = picture.rgb
        found.append(picture if rgb is None else Picture(thumbnails.shrink(rgb, side)))
        progress.advance(1, bad=bool(picture.reason))
    return found


def _place(
    cache: Cache, images: ImageSet, kind: str, artefact: Artefact | None, options: ShowOptions
) -> Path:
    """Return where to write; refuse to replace what is no sheet."""
    if options.output is None:
        of = f"-{artefact.folder.name}" if artefact is not None and kind == "predictions" else ""
        return cache.root / "sheets" / f"{safe(images.name)}-{kind}{of}.png"
    return output_path(options.output, mark=DRAWN, what=SHEET)


def _notes(artefact: Artefact | None, reasons: tuple[str, ...]) -> tuple[str, ...]:
    notes = [artefact.why] if artefact is not None and artefact.why else []
    lost = [reason for reason in reasons if reason]
    if lost:
        kinds = ", ".join(f"{reason} ({lost.count(reason):,})" for reason in sorted(set(lost)))
        notes.append(
            f"{counted(len(lost), 'picture')} could not be shown: {kinds}. Where images have "
            "moved, say with --data where they lie now."
        )
    return tuple(notes)
