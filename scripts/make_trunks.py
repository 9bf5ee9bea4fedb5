"""Write the names of all trunks, and the refused ones in docs/trunks.md; try what is not refused.

`python scripts/make_trunks.py` builds a small member of every module of timm without memory for
its weights (about a minute), and fails where one that is not refused cannot be cut into stages. A
test holds the page to the tables of `pipeline/trunks/sources`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import timm
from torchvision.models import list_models

import pipeline
from pipeline.errors import PipelineError, UsageError
from pipeline.trunks import listed, registry
from pipeline.trunks.sources import from_timm, from_torchvision

PAGE = Path(__file__).parents[1] / "docs" / "trunks.md"
NAMES = Path(pipeline.__file__).parent / "trunks" / listed.TABLE
BEGIN, END = "<!-- refused: scripts/make_trunks.py -->", "<!-- end -->"
_LARGE = ("base", "large", "huge", "giant", "xl", "so400m", "so150m", "7b", "152", "200", "269")
_SMALL = ("test", "tiny", "small", "nano", "pico", "atto", "femto", "xs", "_s", "18", "050", "b0")


def refused() -> str:
    """Return the table of what is refused and why."""
    rows = ["| library | modules or names | why |", "|---|---|---|"]
    for library, table in (("timm", from_timm.REFUSED), ("torchvision", from_torchvision.REFUSED)):
        turned: dict[str, list[str]] = {}
        for key, value in table.items():
            why, names = (key, value) if library == "timm" else (value, key)
            turned.setdefault(why, []).extend(names.split())
        for why, names in turned.items():
            listed = ", ".join(f"`{name}`" for name in sorted(names))
            rows.append(f"| {library} | {listed} | {why} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """Return a page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{refused()}\n{END}{after}"


def names() -> str:
    """Return the table of `pipeline.trunks.listed` for the libraries that are installed."""
    every = [from_timm.PREFIX + name for name in timm.list_models()] + list_models()
    found = registry.names()
    refused: dict[str, list[str]] = {}
    for name in sorted({*every} - {*found}):
        try:
            registry.find(name)
        except UsageError as error:
            refused.setdefault(str(error).replace(name, "{}"), []).append(name)
    table = {"versions": listed.installed(), "names": found, "refused": refused}
    return json.dumps(table, indent=0, ensure_ascii=True) + "\n"


def uncut() -> dict[str, str]:
    """Return the modules of timm a small member of which is not refused and cannot be cut."""
    members: dict[str, list[str]] = {}
    for name in registry.names("timm/*"):
        module = from_timm.module_of(name.removeprefix(from_timm.PREFIX))
        members.setdefault(module, []).append(name)
    found = {}
    for module, names in members.items():
        name = min(
            names,
            key=lambda n: (any(w in n for w in _LARGE), not any(w in n for w in _SMALL), len(n)),
        )
        try:
            registry.describe(name)
        except PipelineError as error:
            found[module] = f"{name}: {error}"
    return found


if __name__ == "__main__":
    NAMES.write_text(names())
    PAGE.write_text(with_table(PAGE.read_text()))
    failed = uncut()
    print(f"timm {timm.__version__}: {len(failed)} modules that are not refused cannot be cut")
    print("\n".join(f"  {module}: {why}" for module, why in failed.items()))
    sys.exit(bool(failed))
