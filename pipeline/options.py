"""Options, each declared once.

A command's options are the fields of a frozen dataclass, each with its `Rule`, and with its line
of help in the class's docstring. The checks, the command line's options, and the line that asks
for the same again derive from it; the public function spells out the same names, types and
defaults.
"""

from __future__ import annotations

import inspect
import math
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints

from pipeline.arguments import instead, named, plain
from pipeline.errors import DamagedError, UsageError, nearest

#: Type of an option to what a value must be, and that in words.
_TYPES: Mapping[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
    tuple: (tuple, "a tuple of texts"),
}
#: What whole numbers stay below: the seeds of NumPy and scikit-learn.
_MOST = 2**32


@dataclass(frozen=True)
class Rule:
    """What an option may be, and how it is written. Equal where all of it is.

    Args:
        metavar: what stands for its value in the help; the choices without it.
        choices: the only values that are allowed, besides None where that is the default.
        least: the smallest number that is allowed.
        within: the interval of numbers that are allowed, such as `[0, 1)`.
        changes: whether another value gives another result; else it says how to compute.
        flags: how the command line writes it where not `--name-of-the-field`.
    """

    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    within: str | None = None
    changes: bool = True
    flags: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Tell whether a text may hold several values, with commas."""
        return "," in (self.metavar or "")

    @property
    def counts(self) -> bool:
        """Tell whether a text may be a number."""
        return "N" in (self.metavar or "").split("|")

    def fault(self, value: Any) -> str:
        """Return what is wrong with a value of the right type, as the end of a sentence."""
        if self.choices and value not in self.choices:
            hint = nearest(str(value), self.choices)
            return f"'{value}' is not one of {', '.join(self.choices)}.{hint}"
        if _too_large(value):
            return f"is too large: it must be below {_MOST}."
        if isinstance(value, Real) and not math.isfinite(value):
            return f"{value} is not a finite number."
        if isinstance(value, str) and "\0" in value:
            return f"{named(value)} has a zero byte."
        if self.least is not None and value < self.least:
            return f"{value} is below {self.least:g}."
        if self.within is not None and not _inside(value, self.within):
            if self.within.endswith("inf)"):
                return f"{value:g} is not above {self.within[1:].split(',')[0]}."
            return f"{value} is not in {self.within}."
        return ""


#: Options that several commands have: how to compute, and where images lie now.
SHARED: Mapping[str, tuple[Any, Rule]] = {
    "precision": ("auto", Rule(choices=("auto", "fp32", "tf32", "bf16", "fp16"))),
    "device": ("auto", Rule(choices=("auto", "cpu", "cuda", "mps"), changes=False)),
    "engine": ("auto", Rule(choices=("auto", "torch", "compiled", "openvino"), changes=False)),
    "batch_size": (None, Rule(metavar="N", least=1, changes=False)),
    "workers": (None, Rule(metavar="N", least=1, changes=False)),
    "jobs": (None, Rule(metavar="N", changes=False)),
    "data": (None, Rule(metavar="DIR", changes=False)),
    "calibration": (True, Rule(flags=("--no-calibration",))),
}


def _inside(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    return above and (value < high if interval[-1] == ")" else value <= high)


def _too_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= _MOST


def _plain(value: Any, kind: type, rule: Rule) -> Any:
    """Return a value as the command line would give it; what fits no type stays, for `check`."""
    value = plain(value, kind)
    if kind is str and isinstance(value, list | tuple) and rule.several:
        parts = [plain(one, str) for one in value]
        fit = all(isinstance(one, str | Real) and not isinstance(one, bool) for one in parts)
        return ",".join(map(str, parts)) if fit and parts else value
    if type(value) is int and kind is str and rule.counts and abs(value) < _MOST:
        return str(value)
    return value


def option(default: Any, **rule: Any) -> Any:
    """Return a dataclass's field that is an option; `rule` is as `Rule` takes it."""
    return field(default=default, metadata={"rule": Rule(**rule)})


def shared(name: str) -> Any:
    """Return a new field for one of the options that several commands have; see `SHARED`."""
    default, rule = SHARED[name]
    return field(default=default, metadata={"rule": rule})


def output_option(metavar: str) -> Any:
    """Return the option `output`: a file or folder to write."""
    return option(None, metavar=metavar, changes=False, flags=("-o", "--output"))


def helps(kind: type[Options]) -> dict[str, str]:
    """Return what a class's docstring says of each option, by name: its line in the help."""
    parts = re.split(r"^    (\w+): ", inspect.getdoc(kind) or "", flags=re.MULTILINE)
    texts = (" ".join(text.split()).replace(" [default:", "  [default:") for text in parts[2::2])
    return dict(zip(parts[1::2], texts, strict=True))


def rules(kind: type[Options]) -> dict[str, Rule]:
    """Return the rule of each option, by name."""
    return {f.name: f.metadata["rule"] for f in fields(kind)}


def flag(name: str) -> str:
    """Return how the command line writes a field: `image_size` is `--image-size`."""
    return f"--{name.replace('_', '-')}"


def types(kind: type[Options]) -> dict[str, tuple[type, bool]]:
    """Return the type of each option, and whether it may be None."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        parts = [part for part in get_args(hint) if part is not NoneType] or [hint]
        parts = [hint] if get_origin(hint) is tuple else parts
        found[name] = (get_origin(parts[0]) or parts[0], NoneType in get_args(hint))
    return found


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command is asked for. Options that are equal give equal results on equal data."""

    def __post_init__(self) -> None:
        """Take values as Python callers have them: a list where several may be given, a path."""
        for name, (kind, _) in types(type(self)).items():
            value = _plain(getattr(self, name), kind, rules(type(self))[name])
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the options among other values by name, such as a public function's arguments."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    @classmethod
    def recorded(cls, values: Mapping[str, Any], what: str) -> Self:
        """Return the options that a head, a model or an advice keeps of how it was made.

        Args:
            values: its recipe.
            what: it is, and where, for the sentence.

        Raises:
            DamagedError: the recipe has keys that are no options, or values that cannot be right.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise DamagedError(
                f"{what} is damaged: its recipe has '{unknown[0]}', which is no option."
                f"{nearest(unknown[0], known)}"
            )
        made = cls(**values)
        try:
            made.check()
        except UsageError as error:
            raise DamagedError(f"{what} is damaged: its recipe has {error}") from error
        return made

    def check(self) -> None:
        """Refuse values that cannot be right, all in one message.

        Raises:
            UsageError: what was given, what is allowed, the nearest name.
        """
        found, mistyped = [], False
        for name, (kind, optional) in types(type(self)).items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            wanted, words = _TYPES[kind]
            rule = rules(type(self))[name]
            right = isinstance(value, wanted) and (kind is bool) == isinstance(value, bool)
            right = right and (kind is not tuple or all(isinstance(one, str) for one in value))
            if right:
                fault = rule.fault(value)
            else:
                words += " or a path" if re.search("FILE|DIR", rule.metavar or "") else ""
                words += ", or several in a list" if kind is str and rule.several else ""
                fault = f"must be {words}, not {named(value)}.{instead(value)}"
            if fault:
                found.append(f"{flag(name)} {fault}")
            mistyped = mistyped or not right or _too_large(value)
        if not mistyped:  # what compares values counts on their types
            found += self.conflicts()
        if found:
            raise UsageError(" ".join(found))

    def conflicts(self) -> list[str]:
        """Return a sentence for each value that does not fit the others."""
        return []

    def deciding(self) -> dict[str, Any]:
        """Return the options that decide the result, by name: another value gives another one."""
        changes = {name for name, rule in rules(type(self)).items() if rule.changes}
        return {name: value for name, value in vars(self).items() if name in changes}

    def command_line(
        self, verb: str, words: Sequence[str], *, without: Collection[str] = ()
    ) -> str:
        """Return the command line that asks for the same result.

        Args:
            verb: the command.
            words: what follows it.
            without: fields that are left out, besides those that change no result.
        """
        line = ["pipeline", verb, *words]
        defaults = {f.name: f.default for f in fields(self)}
        for name, value in self.deciding().items():
            if name in without or value == defaults[name]:
                continue
            word = (rules(type(self))[name].flags or (flag(name),))[-1]
            if isinstance(value, bool):
                line.append(word)
            for one in value if isinstance(value, tuple) else (value,):
                line += [] if isinstance(one, bool) else [word, str(one)]
        return shlex.join(line)
