"""What holds for every page of a report, checked without a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser


class Parsed(HTMLParser):
    """Remembers elements with their attributes, scripts, and the text that people read."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text: list[str] = []
        self._inside: tuple[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = (tag, dict(attrs).get("type"))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside[0] == "script":
            self.scripts.append((self._inside[1], data))


def record_of(html: str) -> dict:
    """Return the data that the page's scripts read."""
    return json.loads(next(text for kind, text in Parsed(html).scripts if kind))


def text_of(html: str) -> str:
    """Return what people read."""
    return "".join(Parsed(html).text)


def check_page(html: str) -> None:
    """Check that nothing is loaded, that nothing foreign runs, and that ids are unique."""
    page = Parsed(html)
    metas = [attributes for tag, attributes in page.elements if tag == "meta"]
    policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe", policy)
    run = [text for kind, text in page.scripts if kind is None]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
