"""View policies: what the augmented views of an image look like, and how a number names one.

View 0 is the evaluation transform under every policy. Another view's number says its policy and
which of that policy's views it is, so that views of several policies lie in one store.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Views that a policy has room for.
ROOM = 1 << 16


@dataclass(frozen=True)
class ViewPolicy:
    """A rung of the ladder of augmentations.

    Attributes:
        scale: share of the picture that a random crop covers, drawn evenly; None: the evaluation
            view's own crop.
        ratio: width by height of a random crop, drawn evenly on a logarithmic scale.
        mirror: share of the views that are flipped from left to right.
        count: different views that there are; None for any number.
    """

    scale: tuple[float, float] | None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.0
    count: int | None = None


#: Name → policy. The order gives views their numbers: append, never insert.
POLICIES: dict[str, ViewPolicy] = {
    # Szegedy et al. 2015, section 6, but for the smallest crops (torchvision's begin at 0.08)
    "crop+mirror": ViewPolicy((0.25, 1.0), mirror=0.5),
    "crop": ViewPolicy((0.25, 1.0)),
    "shift+mirror": ViewPolicy((0.8, 1.0), (0.9, 1 / 0.9), mirror=0.5),
    "shift": ViewPolicy((0.8, 1.0), (0.9, 1 / 0.9)),
    "mirror": ViewPolicy(None, mirror=1.0, count=1),
    "none": ViewPolicy(None, count=0),
}
_NAMES = tuple(POLICIES)
#: The policy of views where none is named, nor chosen by data.
CLASSIC = "crop+mirror"
#: The policies that change an image.
AUGMENTED = tuple(name for name, policy in POLICIES.items() if policy.count != 0)


def known(policy: str | None) -> str:
    """Return a policy's name, or the classic one's where a record names none that there is."""
    return policy if policy in POLICIES else CLASSIC


def numbers(policy: str, count: int) -> tuple[int, ...]:
    """Return the numbers of a policy's first `count` views, or of as many as it has."""
    most = POLICIES[policy].count
    return tuple(
        numbered(policy, one) for one in range(1, 1 + min(count, count if most is None else most))
    )


def numbered(policy: str, view: int) -> int:
    """Return the number of a policy's view, from 1 on."""
    if not 0 < view < ROOM:
        raise ValueError(f"a policy has views 1 to {ROOM - 1:,}, not {view:,}")
    return _NAMES.index(policy) * ROOM + view


def policy_of(number: int) -> ViewPolicy:
    """Return the policy of a view's number above 0."""
    return POLICIES[_NAMES[number // ROOM]]
