"""What `show` and `report` are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.images.names import shown
from pipeline.images.views import POLICIES
from pipeline.options import Options, option, output_option, shared

KINDS = ("classes", "views", "predictions")
#: Most pictures of a sheet: what it is made in, and how long it is, stay bounded.
MOST = 400


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """The options of `show`. Equal options of equal images give equal sheets.

    Args:
        kind: What to show. [default: predictions of a MODEL or HEAD, else classes]
        split: Whose images. [default: all; views: train; predictions: test, else val]
        classes: Only this class, or these.
        count: Images of each class, of all, or of right and wrong each. [default: what fits]
        seed: A random choice, in place of the first or the surest.
        augment: Policy of the views. [default: the MODEL's; else crop+mirror]
        wrong: Of predictions the mistakes alone, the surest first.
        data: Where the images of a table lie now.
        output: The picture to write. [default: in the cache]
        workers: Decoding threads. [default: the cores that the process may use]
    """

    kind: str | None = option(None, choices=KINDS)
    split: str | None = option(None, metavar="train|val|test|all")
    classes: tuple[str, ...] = option((), metavar="NAME", flags=("--class",))
    count: int | None = option(None, metavar="N", least=1)
    seed: int | None = option(None, metavar="N", least=0)
    augment: str | None = option(None, choices=tuple(POLICIES))
    wrong: bool = option(False)
    data: str | None = shared("data")
    output: str | None = output_option("FILE.png")
    workers: int | None = shared("workers")

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
    """The options of `report`.

    Args:
        output: The page to write. [default: reports/<table>.html in the cache]
        data: Where the images lie now, if they have moved.
    """

    output: str | None = output_option("FILE")
    data: str | None = shared("data")
