"""`Remarks`: what decoding converted, assumed or passed over, counted for the person."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.images.names import counted, shown

#: What the list beside a table calls images with a remark: they are in the table.
TAKEN = "taken"


class Remarks:
    """Remarks on images, each 'KIND (DETAIL)', counted by kind, with the first image of each.

    Args:
        given: path and remark of images.
    """

    def __init__(self, given: Iterable[tuple[str, str]] = ()) -> None:
        self._found: dict[str, tuple[int, str, str]] = {}
        for path, remark in given:
            self.add(path, remark)

    def add(self, path: str, remark: str) -> None:
        """Count a remark on an image."""
        kind, _, detail = remark.partition(" (")
        count, *first = self._found.get(kind, (0, path, detail.removesuffix(")")))
        self._found[kind] = (count + 1, first[0], first[1])

    @property
    def notes(self) -> list[str]:
        """Return a sentence for each kind: of how many images, which was the first, and how so."""
        return [
            f"{kind}: {counted(count, 'image')}, "
            f"{'such as ' if count > 1 else ''}'{shown(path)}' ({detail})."
            for kind, (count, path, detail) in self._found.items()
        ]
