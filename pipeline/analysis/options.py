"""What `audit` and `advise` are asked for; what `compare` is stands with its contenders."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.options import Options, option, output_option, shared


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """The options of `audit`.

    Args:
        output: The list to write. [default: beside the table]
    """

    output: str | None = output_option("FILE.csv")


@dataclass(frozen=True, kw_only=True)
class AdviseOptions(Options):
    """The options of `advise`. Equal options on one table and one cache give the same advice.

    Args:
        sample: Training images that random weights are compared on; 0 leaves it out.
        data: Where the images of the table lie now.
        workers: Decoding threads. [default: the cores that the process may use]
        seed: Of folds, samples and permutations.
        output: Write the learning curve there, a PNG.
    """

    sample: int = option(1000, metavar="N", least=0)
    data: str | None = shared("data")
    device: str = shared("device")
    workers: int | None = shared("workers")
    seed: int = option(0, least=0)
    output: str | None = output_option("FILE")
