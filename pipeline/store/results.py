"""What heads and models have in common on disk: a folder with a JSON file that says all of it.

It holds the sha256 of every other file of the folder, and one of itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError, PipelineError
from pipeline.store.system_errors import cannot_read


def checksum(info: dict[str, Any]) -> str:
    """Return the sha256 of a JSON object but for its own `checksum`."""
    rest = {name: value for name, value in info.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Kind:
    """A kind of result. Two are equal when they are the same kind.

    Args:
        name: `head` or `model`; its file is `<name>.json` in `cache/<name>s/<id>/`.
        schema: of that file.
        lists: the command that lists those there are.
        makes: the command that makes one.
        fields: what every file has, as far as it is read again.
    """

    name: str
    schema: int
    lists: str
    makes: str
    fields: frozenset[str]

    def read(self, folder: Path) -> dict[str, Any]:
        """Return a result's JSON file; nothing in it is run.

        Raises:
            PipelineError: there is none.
            DamagedError: it is damaged, or of another schema.
            PipelineError: the system cannot read it now.
        """
        try:
            info = json.loads((folder / f"{self.name}.json").read_text())
        except FileNotFoundError as error:
            kind = DamagedError if folder.is_dir() else PipelineError
            raise kind(
                f"There is no {self.name} {folder}. `{self.lists}` lists those there are, "
                f"`{self.makes}` makes one."
            ) from error
        except OSError as error:
            raise cannot_read(f"the {self.name}", folder / f"{self.name}.json", error) from error
        except ValueError as error:
            raise DamagedError(f"The {self.name} {folder} is damaged: {error}") from error
        if not isinstance(info, dict):
            raise DamagedError(f"The {self.name} {folder} is damaged: it holds no JSON object.")
        if (schema := info.get("schema")) != self.schema:
            newer = isinstance(schema, int) and schema > self.schema
            raise DamagedError(
                f"The {self.name} {folder} is of schema {schema}, and this release reads "
                f"{self.schema}: "
                + ("update Headstart." if newer else f"make it again with `{self.makes}`.")
            )
        missing = sorted(self.fields - set(info))
        if missing:
            raise DamagedError(
                f"The {self.name} {folder} is damaged: {self.name}.json lacks {', '.join(missing)}."
            )
        files = info["files"]
        if not isinstance(files, dict) or any(
            not name or Path(name).name != name for name in files
        ):
            raise DamagedError(f"The {self.name} {folder} is damaged: its files are no list.")
        return info

    def write(self, folder: Path, info: dict[str, Any]) -> dict[str, Any]:
        """Write the JSON file beside all others, whose sha256 it adds; return what was written."""
        own = f"{self.name}.json"
        there = [path for path in sorted(folder.iterdir()) if path.name != own]
        whole = {**info, "files": {path.name: _sha256(path) for path in there}}
        whole["checksum"] = checksum(whole)
        text = json.dumps(whole, indent=1, ensure_ascii=True) + "\n"
        (folder / own).write_text(text)
        return whole

    def check(self, folder: Path, info: dict[str, Any], name: str) -> Path:
        """Return the path of one of a result's files, having hashed it.

        Raises:
            DamagedError: it is missing, or not what was written.
            PipelineError: the system cannot read it now.
        """
        path = folder / name
        again = f"Make the {self.name} again: `{self.makes}` with the same options."
        try:
            found = _sha256(path)
        except OSError as error:
            trouble = cannot_read(f"the {self.name}'s file", path, error)
            if isinstance(trouble, DamagedError):
                trouble = DamagedError(f"{trouble} {again}")
            raise trouble from error
        if found != info["files"].get(name):
            raise DamagedError(
                f"The {self.name}'s file {path} is damaged: its sha256 is not that in "
                f"{self.name}.json. {again}"
            )
        return path

    def damaged(self, folder: Path, info: dict[str, Any]) -> dict[str, str]:
        """Return each of a result's files that is damaged or missing, with what is wrong."""
        found: dict[str, str] = {}
        if info["checksum"] != checksum(info):
            found[str(folder / f"{self.name}.json")] = (
                f"The {self.name} {folder} is damaged: {self.name}.json is not what was written. "
                f"Make it again: `{self.makes}` with the same options."
            )
        for name in info["files"]:
            try:
                self.check(folder, info, name)
            except DamagedError as error:
                found[str(folder / name)] = str(error)
        return found

    def folders(self, cache: Path) -> list[Path]:
        """Return the folders of a cache that hold results of this kind, sorted by id."""
        folder = cache / f"{self.name}s"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [path for path in found if not path.name.startswith(".") and path.is_dir()]

    def every(self, cache: Path) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the JSON of every result, newest first; and what is wrong with the others."""
        found, damaged = [], []
        for path in self.folders(cache):
            try:
                found.append({**self.read(path), "path": str(path)})
            except PipelineError as error:
                damaged.append(str(error))
        return sorted(found, key=lambda info: str(info["created"]), reverse=True), damaged


HEAD = Kind(
    "head",
    4,
    "pipeline heads",
    "pipeline fit-head",
    frozenset(
        [
            "id",
            "clf",
            "table_id",
            "fingerprint",
            "trunk",
            "dim",
            "features",
            "classes",
            "majority",
            "recipe",
            "parameters",
            "temperature",
            "calibration",
            "score",
            "spread",
            "metrics",
            "repeats",
            "near_duplicates",
            "notes",
            "seconds",
            "created",
            "files",
            "checksum",
        ]
    ),
)
MODEL = Kind(
    "model",
    3,
    "pipeline models",
    "pipeline finetune",
    frozenset(
        [
            "id",
            "head",
            "table_id",
            "fingerprint",
            "trunk",
            "weights",
            "weights_asked",
            "weights_digest",
            "keys",
            "layer",
            "pool",
            "preprocess",
            "boundary",
            "learns",
            "places",
            "l2",
            "standalone",
            "precision",
            "classes",
            "majority",
            "calibration",
            "metrics",
            "selected_on",
            "compared_on",
            "activations",
            "shards",
            "created",
            "train_images",
            "beats_head",
            "finished",
            "files",
            "checksum",
        ]
    ),
)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
