"""What `show` and `report` are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.images.names import shown
from pipeline.options import Options, data_option, option, workers_option

KINDS = ("classes", "views", "predictions")
#: Most pictures of a sheet: what it is made in, and how long it is, stay bounded.
MOST = 400


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """The options of `show`. Equal options of equal images give equal sheets."""

    kind: str | None = option(
        None,
        "What to show.  [default: predictions of a MODEL or HEAD, else classes]",
        choices=KINDS,
    )
    split: str | None = option(
        None,
        "Whose images.  [default: all; views: train; predictions: test, else val]",
        metavar="train|val|test|all",
    )
    classes: tuple[str, ...] = option(
        (), "Only this class, or these.", metavar="NAME", flags=("--class",)
    )
    count: int | None = option(
        None,
        "Images of each class, of all, or of right and wrong each.  [default: what fits]",
        metavar="N",
        least=1,
    )
    seed: int | None = option(
        None, "A random choice, in place of the first or the surest.", metavar="N", least=0
    )
    wrong: bool = option(False, "Of predictions the mistakes alone, the surest first.")
    data: str | None = data_option()
    output: str | None = option(
        None,
        "The picture to write.  [default: in the cache]",
        metavar="FILE.png",
        changes=False,
        flags=("-o", "--output"),
    )
    workers: int | None = workers_option()

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that cannot be."""
        found = []
        if self.count is not None and self.count > MOST:
            found.append(f"--count {self.count} is above {MOST}, the pictures that a sheet holds.")
        if self.output is not None and Path(self.output).suffix.lower() != ".png":
            found.append(f"--output {shown(self.output)} must end in .png: a sheet is a PNG.")
        return found


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """The options of `report`."""

    output: str | None = option(
        None,
        "The page to write.  [default: reports/<table>.html in the cache]",
        metavar="FILE",
        changes=False,
        flags=("-o", "--output"),
    )
    data: str | None = data_option("Where the images lie now, if they have moved.")
