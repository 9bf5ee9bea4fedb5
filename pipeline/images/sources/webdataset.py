"""WebDataset's layout: members that share a key are a sample, `.cls` or `.json` says its class.

The key is the name up to the first dot of its last part (webdataset's `base_plus_ext`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.images.datasets.lists.columns import meaning
from pipeline.images.decoding.formats import OPTIONAL, SUFFIXES
from pipeline.images.names import SPLIT_NAMES
from pipeline.images.sources.members import Listing, Member

OTHER = "another image of its sample"


def samples(listing: Listing) -> Listing:
    """Return a listing with what `.cls` and `.json` files say of the images beside them.

    These and whatever else is no image of a sample are not listed. Where none says a class, the
    listing is as it was.
    """
    said: dict[str, dict[str, str]] = {}
    for member in listing.members:
        if member.said:
            own = _values(member)  # a class of `.cls` counts, whatever `.json` says
            known = said.setdefault(_key(member.name)[0], {})
            known |= own if member.name.lower().endswith(".cls") else {**own, **known}
    if not any(values.get("label") for values in said.values()):
        return listing
    main = _main([m for m in listing.members if not m.reason and _is_image(m.name)])
    found: list[Member] = []
    for member in listing.members:
        key = _key(member.name)[0]
        if member.name.endswith("/") or (key in said and not _is_image(member.name)):
            continue
        if main.get(key, member.name) != member.name:
            member = member._replace(reason=member.reason or OTHER)
        values = said.get(key, {})
        split = SPLIT_NAMES.get(values.get("split", "").casefold(), "")
        label, group = values.get("label", ""), values.get("group", "")
        found.append(member._replace(label=label, split=split, group=group))
    return listing._replace(members=tuple(found), labelled=True)


def _key(name: str) -> tuple[str, str]:
    """Return key and extension of a member."""
    folder, slash, last = name.rpartition("/")
    base, _, extension = last.partition(".")
    return f"{folder}{slash}{base}", extension


def _is_image(name: str) -> bool:
    return name.lower().endswith((*SUFFIXES, *OPTIONAL))


def _main(images: Sequence[Member]) -> dict[str, str]:
    """Return key → the image of a sample: the one with the shortest extension."""
    found: dict[str, str] = {}
    for member in images:
        key, extension = _key(member.name)
        if key not in found or len(extension) < len(_key(found[key])[1]):
            found[key] = member.name
    return found


def _values(member: Member) -> dict[str, str]:
    """Return what a member says of its sample: `label`, `split`, `group`."""
    if member.name.lower().endswith(".cls"):
        return {"label": member.said.strip()} if member.said.strip() else {}
    try:
        said = json.loads(member.said)
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    found: dict[str, str] = {}
    for name, value in said.items():
        what = meaning(name)
        known = what in ("label", "split", "group") and isinstance(value, str | int)
        # of a number and a name of the class the name
        if what and known and (what not in found or isinstance(value, str)):
            found[what] = str(value).strip()
    return found
