"""The trunk of a table, a head or a model, loaded again from wherever its weights are now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from pipeline.arguments import file_and_key
from pipeline.errors import PipelineError
from pipeline.store.cache import Cache
from pipeline.trunks import registry
from pipeline.trunks.registry import LoadedTrunk


class Recorded(Protocol):
    """What records say of a trunk; see `pipeline.store.records.FeatureSource`."""

    @property
    def trunk(self) -> str:
        """Its name."""

    @property
    def weights_asked(self) -> str:
        """A name, or the absolute path of a file."""

    @property
    def weights_digest(self) -> str:
        """The sha256 of its tensors."""

    @property
    def preprocess(self) -> dict[str, Any]:
        """What the trunk sees, as JSON: its `crop` is the side of the input."""

    @property
    def keys(self) -> str:
        """How a file is matched: by `name` or by `order`."""


def load_recorded(given: Recorded, cache: Cache, *, made: str, otherwise: str) -> LoadedTrunk:
    """Load the trunk with the weights that something was made with.

    A weights file that is gone, or holds others now, is looked for by its digest: where the tables
    of the cache name one, and where it would be if it had moved together with the cache.

    Args:
        given: the record.
        cache: whose tables are asked; it also keeps calibrated random weights.
        made: what was made, for people.
        otherwise: what to do where weights of a name are gone, for people.

    Raises:
        PipelineError: no file with those weights is found, or what is found is damaged.
    """
    asked, size = Path(given.weights_asked), int(given.preprocess["crop"])
    if not asked.is_absolute():
        trunk = registry.load(
            given.trunk, given.weights_asked, keys=given.keys, size=size, state_dir=cache.weights
        )
        registry.check_weights(
            trunk, given.weights_digest, asked=given.weights_asked, made=made, otherwise=otherwise
        )
        return trunk
    once = (
        f"run `pipeline extract DATA --trunk {given.trunk} --weights FILE` once with the file that "
        f"holds them now: {made} and all else that was made with them then find it"
    )
    faults = []
    for place, keys in chain([(asked, given.keys)], _places(given, cache)):
        try:
            trunk = registry.load(given.trunk, place, keys=keys, size=size, state_dir=cache.weights)
            registry.check_weights(
                trunk, given.weights_digest, asked=str(place), made=made, otherwise=once
            )
            return trunk
        except PipelineError as error:
            faults.append(error)
    if file_and_key(asked)[0].exists():
        raise faults[0]
    raise PipelineError(
        f"The weights file {asked} of {made} does not exist any more, and no table of {cache.root} "
        f"knows another place of the same weights ({given.weights_digest[:12]}). Put it back, or "
        f"{once}."
    )


def _places(given: Recorded, cache: Cache) -> Iterator[tuple[Path, str]]:
    """Yield other files that may hold a record's weights, each once, and how they are matched."""
    seen = {Path(given.weights_asked)}
    for known in cache.provenances():
        path = Path(known.weights_asked)
        if known.weights_digest != given.weights_digest or not path.is_absolute():
            continue
        moved_along = Path(os.path.normpath(cache.root / os.path.relpath(path, known.cache)))
        for place in (path, moved_along):
            if place not in seen and file_and_key(place)[0].is_file():
                seen.add(place)
                yield place, known.keys
