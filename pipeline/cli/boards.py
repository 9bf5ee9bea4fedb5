"""Tables for people: leaderboards of heads and models, and figures in a line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from pipeline.cli.log import shown
from pipeline.heads.leaderboard import Ranked
from pipeline.store.result_records import HeadInfo, ModelInfo
from pipeline.store.score_records import Metrics, SplitMetrics


def aligned(rows: list[list[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return rows of cells as lines, columns aligned left, or right where they are named so."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        shown("  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip())
        for row in rows
    ]  # fmt: skip


def accuracy(values: Metrics, *, role: str = "") -> str:
    """Return `0.954 [0.908, 0.978]`, and behind it what the split did: it chose, or decided."""
    if isinstance(values, SplitMetrics) and values.selected_on:
        role = "chose"
    return f"{share(values.accuracy, values.interval)} {role}".rstrip()


def share(value: float | None, interval: tuple[float, float] | None) -> str:
    """Return an accuracy with its interval; `untried` where there is none."""
    if value is None or interval is None:
        return "untried"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def figures(values: Metrics) -> str:
    """Return all figures of a split's metrics in a line."""
    over = "" if values.groups is None else f" over {values.groups:,} groups"
    parts = [
        f"accuracy {accuracy(values)}{over}",
        f"balanced {values.balanced_accuracy:.3f}",
        f"macro F1 {values.f1_macro:.3f}",
        f"log-loss {values.log_loss:.3f}",
        *([f"top-5 {values.top5:.3f}"] if values.top5 is not None else []),
        f"calibration error {values.calibration_error:.3f}",
        f"majority class {values.baseline:.3f}",
    ]
    return ", ".join(parts)


def heads(board: Sequence[Ranked[HeadInfo]]) -> list[str]:
    """Return a leaderboard of heads as aligned lines, the best by selection marked with *."""
    splits = [name for name in ("val", "test") if any(name in one.info.metrics for one in board)]
    header = ["", "head", "choice", "selection", "log-loss", *[f"{name} [95%]" for name in splits]]
    rows = [[*header, "seconds", "id"]]
    for one in board:
        info = one.info
        chosen = {**info.parameters, **({"views": v} if (v := info.recipe["views"]) else {})}
        choice = ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in chosen.items()
        )
        score = "untried" if info.score is None else f"{abs(info.score):.4f} ± {info.spread:.4f}"
        loss = "-" if info.held_out_log_loss is None else f"{info.held_out_log_loss:.3f}"
        row = ["*" if one.best else "", info.clf, choice or "-", score, loss]
        row += [accuracy(values) for values in info.metrics.values()]
        rows.append([*row, f"{info.seconds:.1f}", info.id])
    return [*aligned(rows, right={len(header)}), *_ties(board)]


def _ties(board: Sequence[Ranked[HeadInfo]]) -> Iterator[str]:
    """Yield a line for each best head whose score is not the highest of its group."""
    for best in (one for one in board if one.best):
        group = [one.info for one in board if one.group == best.group]
        top = max(group, key=lambda info: -1e9 if info.score is None else info.score)
        if (top.score or 0.0) > (best.info.score or 0.0):
            yield (
                f"{best.info.clf} is within one standard error of {top.clf}, and the lower "
                "log-loss decides."
            )


def models(board: Sequence[Ranked[ModelInfo]]) -> list[str]:
    """Return a leaderboard of models as aligned lines, the best marked with *."""
    first = board[0].info
    reported = [split for split, of in first.metrics.items() if not of.selected_on]
    header = ["", "unfrozen", "kept", "log-loss", *[f"{split} [95%]" for split in reported]]
    header += [f"its head, {split}" for split in reported]
    rows = [[*header, "seconds", "id"]]
    for one in board:
        info = one.info
        rows.append([
            "*" if one.best else "",
            "from scratch" if info.from_scratch else info.unfreeze,
            info.kept + ("" if info.finished else " stopped"),
            f"{info.chosen.model.log_loss:.4f}",
            *[accuracy(info.metrics[split].model) for split in reported],
            *[f"{info.metrics[split].start.accuracy:.3f}" for split in reported],
            f"{sum(info.seconds.values()):.1f}",
            info.id,
        ])  # fmt: skip
    return aligned(rows, right={len(header)})
