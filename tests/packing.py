"""One folder of images in every form that is read, for the tests."""

import csv
import functools
import http.server
import io
import json
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import fsspec
import pyarrow
import pyarrow.parquet


def files(folder: Path) -> list[Path]:
    """Return the files of a folder of train/ and val/ with class folders, in data set order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def described(path: Path) -> dict[str, str]:
    """Return what the path of an image says of it."""
    return {"label": path.parts[-2], "split": path.parts[-3]}


def as_tar(folder: Path, place: Path, mode: str = "w") -> Path:
    with tarfile.open(place, mode) as tar:
        tar.add(folder, arcname=".")
    return place


def as_zstandard(folder: Path, place: Path) -> Path:
    import zstandard

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.add(folder, arcname="photos")
    place.write_bytes(zstandard.ZstdCompressor().compress(plain.getvalue()))
    return place


def as_webdataset(folder: Path, home: Path) -> Path:
    """Write shards of ten samples; return the pattern that means them."""
    every = files(folder)
    home.mkdir()
    for number, start in enumerate(range(0, len(every), 10)):
        with tarfile.open(home / f"shard-{number:03}.tar", "w") as tar:
            for at, path in enumerate(every[start : start + 10], start):
                said = described(path)
                pieces = {"png": path.read_bytes(), "json": json.dumps(said).encode()}
                pieces["cls"] = said["label"].encode()
                for kind, data in pieces.items():
                    info = tarfile.TarInfo(f"{at:06}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    last = (len(every) - 1) // 10
    return home / f"shard-{{000..{last:03}}}.tar"


def as_zip(folder: Path, place: Path) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as out:
        for path in files(folder):
            out.write(path, f"photos/{path.relative_to(folder)}")
    return place


def as_parquet(folder: Path, place: Path, *, rows: int = 7) -> Path:
    """Write bytes and paths as Hugging Face's `datasets` does, classes by number."""
    every = files(folder)
    names = sorted({described(path)["label"] for path in every})
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in every]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.int64()),
            ("split", pyarrow.string()),
        ],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
    )
    table = pyarrow.table(
        {
            "image": images,
            "label": [names.index(described(path)["label"]) for path in every],
            "split": [described(path)["split"] for path in every],
        },
        schema=schema,
    )
    pyarrow.parquet.write_table(table, place, row_group_size=rows)
    return place


def as_parquet_of_paths(folder: Path, place: Path) -> Path:
    every = files(folder)
    said = [described(path) for path in every]
    table = {"file": [str(path) for path in every]}
    table |= {name: [one[name] for one in said] for name in ("label", "split")}
    pyarrow.parquet.write_table(pyarrow.table(table), place)
    return place


def as_saved_dataset(folder: Path, place: Path) -> Path:
    """Write what `DatasetDict.save_to_disk` writes, without the library."""
    for split in ("train", "val"):
        home = place / split
        home.mkdir(parents=True)
        table = pyarrow.parquet.read_table(as_parquet(folder, place / "all.parquet"))
        (place / "all.parquet").unlink()
        table = table.filter(pyarrow.compute.equal(table["split"], split)).drop(["split"])
        with pyarrow.ipc.new_stream(home / "data-00000-of-00001.arrow", table.schema) as out:
            out.write_table(table, max_chunksize=5)
        (home / "state.json").write_text('{"_data_files": []}')
        (home / "dataset_info.json").write_text("{}")
        (home / "cache-1234.arrow").write_bytes(b"no table")
    (place / "dataset_dict.json").write_text('{"splits": ["train", "val"]}')
    return place


def as_list(folder: Path, place: Path) -> Path:
    place.write_text("".join(f"{path}\n" for path in files(folder)))
    return place


def as_csv(folder: Path, place: Path) -> Path:
    with place.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for path in files(folder):
            said = described(path)
            out.writerow([path.relative_to(place.parent), said["label"], said["split"]])
    return place


def in_memory(folder: Path, home: str) -> str:
    """Put a folder where fsspec's `memory://` keeps files; return its address."""
    system = fsspec.filesystem("memory")
    for path in files(folder):
        system.pipe(f"/{home}/{path.relative_to(folder)}", path.read_bytes())
    return f"memory://{home}"


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them, as most servers do."""

    def log_message(self, *args): ...

    def do_GET(self):
        asked = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not (asked and path.is_file()):
            return super().do_GET()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        data = path.read_bytes()
        part = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


class _Whole(http.server.SimpleHTTPRequestHandler):
    """Serves whole files alone, as Python's own server does."""

    def log_message(self, *args): ...


@contextmanager
def served(home: Path, *, parts: bool = True):
    """Serve a folder; give its address."""
    handler = functools.partial(_Ranges if parts else _Whole, directory=str(home))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


FORMS = {
    "tar": lambda folder, home: as_tar(folder, home / "photos.tar"),
    "tar.gz": lambda folder, home: as_tar(folder, home / "photos.tar.gz", "w:gz"),
    "tar.bz2": lambda folder, home: as_tar(folder, home / "photos.tar.bz2", "w:bz2"),
    "tar.xz": lambda folder, home: as_tar(folder, home / "photos.txz", "w:xz"),
    "tar.zst": lambda folder, home: as_zstandard(folder, home / "photos.tar.zst"),
    "webdataset": lambda folder, home: as_webdataset(folder, home / "shards"),
    "zip": lambda folder, home: as_zip(folder, home / "photos.zip"),
    "parquet": lambda folder, home: as_parquet(folder, home / "photos.parquet"),
    "parquet of paths": lambda folder, home: as_parquet_of_paths(folder, home / "paths.parquet"),
    "saved data set": lambda folder, home: as_saved_dataset(folder, home / "saved"),
    "list": lambda folder, home: as_list(folder, home / "photos.txt"),
    "csv": lambda folder, home: as_csv(folder, home / "photos.csv"),
    "memory": lambda folder, home: in_memory(folder, f"{home.name}/photos"),
}
