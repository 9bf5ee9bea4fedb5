"""`--unfreeze`: which parameters of a trunk learn, and where the frozen part ends."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError, nearest
from pipeline.trunks.staging.stages import StagedTrunk


@dataclass(frozen=True)
class Cut:
    """Where a trunk is parted into what is frozen and what is run in every step.

    Attributes:
        after: the boundary: the last frozen stage, `pixels` where nothing is frozen in front, or
            `feature` where the whole trunk is.
        learns: state-dict names of the trunk's parameters that learn.
        places: the stages, and perhaps `neck`, that hold them, in order.
        roots: state-dict names of the modules that were named: what has a training mode.
    """

    after: str
    learns: tuple[str, ...]
    places: tuple[str, ...]
    roots: tuple[str, ...] = ()


def cut(trunk: StagedTrunk, asked: str, *, layer: str) -> Cut:
    """Return what `--unfreeze` means for a trunk.

    Args:
        trunk: cut into stages.
        asked: `all`, `none`, a number of last stages, or names with commas: stages, `neck`, or
            native modules (`layer4.1`, `features.7`).
        layer: where the features end: a stage, `feature`, or several joined by `+`.

    Raises:
        UsageError: a name that there is not (with those that there are), one behind the layer,
            or one that has nothing to learn.
    """
    stages = list(trunk.stages)
    pooled = layer.split("+")
    if pooled[-1] != "feature":
        stages = stages[: stages.index(pooled[-1]) + 1]
    places = [*stages, *(["neck"] if pooled[-1] == "feature" and trunk.neck is not None else [])]
    names = _names(asked, stages, places)
    learns: list[str] = []
    held: set[str] = set()
    roots = []
    for name in names:
        place = _place(trunk, name)
        if place not in places:
            raise UsageError(
                f"'{name}' comes behind {layer}, where the features of this table end; it has "
                f"{', '.join(places)}."
            )
        own = trunk.parameters_of(name)
        if own:
            held.add(place)
        elif asked not in ("all",) and not asked.isdigit():
            raise UsageError(f"'{name}' has no parameters: there is nothing to unfreeze in it.")
        learns += own
        root = place if place == "neck" else f"stages.{place}"
        roots.append(root if name == place else f"{root}.{name}")
    order = [place for place in places if place in held]
    if not order:
        return Cut("feature", (), ())
    first = order[0]
    before = places.index(first) - 1
    if pooled[0] in places:  # what is pooled in front of the unfrozen stages runs in every step
        before = min(before, places.index(pooled[0]))
    after = places[before] if before >= 0 else "pixels"
    return Cut(after, tuple(dict.fromkeys(learns)), tuple(order), tuple(roots))


def _names(asked: str, stages: list[str], places: list[str]) -> list[str]:
    if asked == "none":
        return []
    if asked == "all":
        return places
    if asked.isdigit():
        count = int(asked)
        if not 0 < count <= len(stages):
            raise UsageError(
                f"--unfreeze {asked}: these features come from {len(stages)} stages "
                f"({', '.join(stages)}); give 1 to {len(stages)}, names, all or none."
            )
        return stages[-count:]
    names = [name.strip() for name in asked.split(",")]
    if not all(names):
        raise UsageError(f"--unfreeze '{asked}' has an empty name; give {', '.join(places)}.")
    return names


def _place(trunk: StagedTrunk, name: str) -> str:
    try:
        return trunk.stage_of(name)
    except UsageError as error:
        hint = "" if "mean" in str(error) else nearest(name, ("all", "none"))
        raise UsageError(f"--unfreeze: {error}{hint}") from error
