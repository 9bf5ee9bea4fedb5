"""What `audit` and `advise` are asked for; what `compare` is stands with its contenders."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.options import Options, data_option, device_option, option, workers_option


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """The options of `audit`."""

    output: str | None = option(
        None,
        "The list to write.  [default: beside the table]",
        metavar="FILE.csv",
        changes=False,
        flags=("-o", "--output"),
    )


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(Options):
    """The options of `advise`. Equal options on one table and one cache give the same advice."""

    sample: int = option(
        1000,
        "Training images that random weights are compared on; 0 leaves it out.",
        metavar="N",
        least=0,
    )
    data: str | None = data_option("Where the images of the table lie now.")
    device: str = device_option()
    workers: int | None = workers_option()
    seed: int = option(0, "Of folds, samples and permutations.", least=0)
    output: str | None = option(
        None,
        "Write the learning curve there, a PNG.",
        metavar="FILE",
        changes=False,
        flags=("-o", "--output"),
    )
