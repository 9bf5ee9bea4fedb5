"""What a verb tells of its progress; the command line draws it, Python callers hear nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a long piece of work does."""

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of `total` images; 0 where nothing is counted."""
        ...

    def advance(self, count: int, bad: int = 0) -> None:
        """Tell that `count` more are done, and how many of them had to be left out."""
        ...

    def update(self, text: str) -> None:
        """Tell what the work is at now, in place of what was told before."""
        ...

    def say(self, sentence: str) -> None:
        """Tell something that a person should read now."""
        ...


class Silent:
    """Tells nobody."""

    def start(self, what: str, total: int) -> None:
        """Do nothing."""

    def advance(self, count: int, bad: int = 0) -> None:
        """Do nothing."""

    def update(self, text: str) -> None:
        """Do nothing."""

    def say(self, sentence: str) -> None:
        """Do nothing."""
