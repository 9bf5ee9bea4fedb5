"""`Catalogue`: what is in archives, remembered while they stay the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from pipeline.images.memo import StatMemo
from pipeline.images.sources import shelf
from pipeline.images.sources.address import is_remote, joined, kind_of
from pipeline.images.sources.members import Listing, Member
from pipeline.images.sources.webdataset import samples

#: Raised where the same archive is listed otherwise.
_VERSION = 1


class Catalogue:
    """Lists archives.

    Args:
        memo: remembers listings between runs.
        again: list every archive all the same.
        read: told the addresses in an archive that had to be unpacked or fetched whole, where there
            are so many that it would be so again, so that they are read while it is at hand.
    """

    def __init__(
        self,
        memo: StatMemo | None = None,
        *,
        again: bool = False,
        read: Callable[[list[str]], object] = lambda addresses: None,
    ):
        self._memo = memo or StatMemo(None)
        self._again, self._read = again, read
        self._stamps = shelf.Stamps()

    def listing(self, address: str, *, many: bool = False) -> Listing:
        """Return what an archive holds.

        Args:
            address: of it.
            many: whether it is one of more than can be at hand.

        Raises:
            FileNotFoundError: there is none.
            PipelineError: it is none of its kind, or cannot be read.
        """
        stamp = self._stamps.of_archive(address)
        if stamp is None:
            raise FileNotFoundError(address)
        key = os.fsencode(address)
        remembered = f"{_VERSION} {stamp}" if stamp else ""
        if remembered and not self._again and (text := self._memo.get_listing(key, remembered)):
            return _from_json(text)
        listing = samples(shelf.archive(address).listing())
        if remembered:
            self._memo.put_listing(key, remembered, _to_json(listing))
        if many and (is_remote(address) or (kind_of(address) == "tar" and listing.notes)):
            self._read([
                joined(address, m.name) for m in listing.members
                if not (m.reason or m.elsewhere or m.name.endswith("/"))
            ])  # fmt: skip
        return listing


def _to_json(listing: Listing) -> str:
    rows = [list(member._replace(said="")) for member in listing.members]
    return json.dumps([rows, listing.faults, listing.notes, listing.labelled])


def _from_json(text: str) -> Listing:
    rows, faults, notes, labelled = json.loads(text)
    return Listing(tuple(Member(*row) for row in rows), tuple(faults), tuple(notes), labelled)
