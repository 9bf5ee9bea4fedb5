"""timm's own notation: `local-dir:FOLDER` and `hf-hub:OWNER/NAME`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER, HUB = "local-dir", "hf-hub"


@dataclass(frozen=True)
class Address:
    """Where a network of timm is described. Equal addresses lead to the same place.

    Attributes:
        kind: `FOLDER` or `HUB`.
        where: a folder, or a name on the hub, perhaps with `@` and a revision.
    """

    kind: str
    where: str


def address_of(name: str) -> Address | None:
    """Return what a name in timm's own notation leads to, with or without `timm/`; else None."""
    kind, colon, where = name.removeprefix("timm/").partition(":")
    kind = kind.replace("_", "-")  # timm's old spelling is hf_hub
    return Address(kind, where) if colon and kind in (FOLDER, HUB) else None
