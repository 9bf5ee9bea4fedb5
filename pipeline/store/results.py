"""What heads and models have in common on disk: a folder with a JSON file that says all of it.

It holds the sha256 of every other file of the folder, and one of itself.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.errors import DamagedError, PipelineError
from pipeline.store.atomic import cannot_read
from pipeline.store.result_records import HeadInfo, ModelInfo, ResultInfo

Info = TypeVar("Info", bound=ResultInfo)


def checksum(info: dict[str, Any]) -> str:
    """Return the sha256 of a JSON object but for its own `checksum`."""
    rest = {name: value for name, value in info.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Kind(Generic[Info]):
    """A kind of result. Two are equal when they are the same kind.

    Args:
        name: `head` or `model`; its file is `<name>.json` in `cache/<name>s/<id>/`.
        schema: of that file.
        lists: the command that lists those there are.
        makes: the command that makes one.
        record: what the file holds.
    """

    name: str
    schema: int
    lists: str
    makes: str
    record: type[Info]

    def read(self, folder: Path) -> Info:
        """Return what a result's JSON file says; nothing in it is run.

        Raises:
            PipelineError: there is none.
            DamagedError: it is damaged, or of another schema.
            PipelineError: the system cannot read it now.
        """
        values = self._values(folder)
        if (schema := values.get("schema")) != self.schema:
            newer = isinstance(schema, int) and schema > self.schema
            raise DamagedError(
                f"The {self.name} {folder} is of schema {reprlib.repr(schema)}, and this release "
                f"reads {self.schema}: "
                + ("update Headstart." if newer else f"make it again with `{self.makes}`.")
            )
        try:
            info = self.record.from_json(values)
        except ValueError as error:
            raise DamagedError(
                f"The {self.name} {folder} is damaged: {self.name}.json {error}."
            ) from error
        if any(not name or Path(name).name != name for name in info.files):
            raise DamagedError(f"The {self.name} {folder} is damaged: its files are no list.")
        return replace(info, folder=folder)

    def _values(self, folder: Path) -> dict[str, Any]:
        try:
            values = json.loads((folder / f"{self.name}.json").read_text())
        except FileNotFoundError as error:
            kind = DamagedError if folder.is_dir() else PipelineError
            raise kind(
                f"There is no {self.name} {folder}. `{self.lists}` lists those there are, "
                f"`{self.makes}` makes one."
            ) from error
        except OSError as error:
            raise cannot_read(f"the {self.name}", folder / f"{self.name}.json", error) from error
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"The {self.name} {folder} is damaged: {error}") from error
        if not isinstance(values, dict):
            raise DamagedError(f"The {self.name} {folder} is damaged: it holds no JSON object.")
        return values

    def write(self, folder: Path, info: Info) -> Info:
        """Write the JSON file beside all others, whose sha256 it adds; return what was written."""
        own = f"{self.name}.json"
        others = [path for path in sorted(folder.iterdir()) if path.name != own]
        whole = replace(info, files={path.name: _sha256(path) for path in others})
        whole = replace(whole, checksum=checksum(whole.to_json()))
        text = json.dumps(whole.to_json(), indent=1, ensure_ascii=True) + "\n"
        (folder / own).write_text(text)
        return whole

    def check(self, folder: Path, info: Info, name: str) -> Path:
        """Return the path of one of a result's files, having hashed it.

        Raises:
            DamagedError: it is missing, or not what was written.
            PipelineError: the system cannot read it now.
        """
        path = folder / name
        again = f"Make the {self.name} again: `{self.makes}` with the same options."
        try:
            digest = _sha256(path)
        except OSError as error:
            failure = cannot_read(f"the {self.name}'s file", path, error)
            if isinstance(failure, DamagedError):
                failure = DamagedError(f"{failure} {again}")
            raise failure from error
        if digest != info.files.get(name):
            raise DamagedError(
                f"The {self.name}'s file {path} is damaged: its sha256 is not that in "
                f"{self.name}.json. {again}"
            )
        return path

    def damaged(self, folder: Path, info: Info) -> dict[str, str]:
        """Return each of a result's files that is damaged or missing, with what is wrong."""
        reasons: dict[str, str] = {}
        if info.checksum != checksum(self._values(folder)):  # keys that are no fields, too
            reasons[str(folder / f"{self.name}.json")] = (
                f"The {self.name} {folder} is damaged: {self.name}.json is not what was written. "
                f"Make it again: `{self.makes}` with the same options."
            )
        for name in info.files:
            try:
                self.check(folder, info, name)
            except DamagedError as error:
                reasons[str(folder / name)] = str(error)
        return reasons

    def folders(self, cache: Path) -> list[Path]:
        """Return the folders of a cache that hold results of this kind, sorted by id."""
        folder = cache / f"{self.name}s"
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in paths if not path.name.startswith(".") and path.is_dir()]

    def every(self, cache: Path) -> tuple[list[Info], list[str]]:
        """Return what every result says, newest first; and what is wrong with the others."""
        infos, damaged = [], []
        for path in self.folders(cache):
            try:
                infos.append(self.read(path))
            except PipelineError as error:
                damaged.append(str(error))
        return sorted(infos, key=lambda info: info.created, reverse=True), damaged


HEAD = Kind("head", 7, "pipeline heads", "pipeline fit-head", HeadInfo)
MODEL = Kind("model", 6, "pipeline models", "pipeline finetune", ModelInfo)
RESULTS: tuple[Kind[Any], ...] = (HEAD, MODEL)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
