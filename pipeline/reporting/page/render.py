"""From a record to HTML: one template, one style sheet, two scripts, and nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.images.names import shown
from pipeline.reporting.page.choice import short

if TYPE_CHECKING:
    from jinja2 import Environment

#: The page's scripts, in the order in which they run.
SCRIPTS = ("page.js", "map.js")
#: What stands near the beginning of every page.
MARK = b'<meta name="headstart-made-from"'
#: How a page says what it was made from, within so many bytes of its beginning.
_ORIGIN, _WITHIN = re.compile(rb'<meta name="headstart-made-from" content="(\w*)">'), 400


def page(record: dict[str, Any]) -> str:
    """Return the page of a record, whole.

    Text is made printable and escaped by the template, data by `embedded`, and the policy lets the
    page's own scripts run, by their hashes, and nothing else; no address but `data:` can be loaded.

    Args:
        record: of `pipeline.reporting.page.record`; `data` is what the scripts read.
    """
    from markupsafe import Markup

    scripts = [_own(name) for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{_hash(text)}'" for text in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        environment()
        .get_template("page.html")
        .render(
            record,
            policy=policy,
            style=Markup(_own("page.css")),
            scripts=[Markup(text) for text in scripts],
            embedded=Markup(embedded(record["data"])),
            svg=Markup,
        )
    )


def environment() -> Environment:
    """Return what the templates are read and filled with."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("pipeline.reporting.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    made.filters.update(percent=percent, figures=figures, seconds=seconds, short=short)
    return made


def printable(value: Any) -> Any:
    """Return text and paths so that they can be printed, and other values as they are."""
    return shown(value) if type(value) is str or isinstance(value, Path) else value


def made_from(path: Path) -> str:
    """Return the `origin` of the record that a page was made from; empty where it says none."""
    try:
        with path.open("rb") as file:
            found = _ORIGIN.search(file.read(_WITHIN))
    except OSError:
        return ""
    return found[1].decode() if found else ""


def embedded(values: Any) -> str:
    """Return JSON that can stand in a script element: no `<` that would end it, ASCII alone."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def percent(share: float | None) -> str:
    """Return `76.2%`, or a dash for what is not known."""
    return "–" if share is None else f"{100 * share:.1f}%"


def figures(value: float | None, places: int = 3) -> str:
    """Return a number with so many decimal places, or a dash for what is not known."""
    return "–" if value is None else f"{value:.{places}f}"


def seconds(value: float | None) -> str:
    """Return `13.7 s`, `4 min 10 s`, `2 h 5 min`, or a dash for what is not known."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _own(name: str) -> str:
    return files("pipeline.reporting.page").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
