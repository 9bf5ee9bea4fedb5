"""Measure how fast the same images come from a folder, a tar, a ZIP archive and Parquet.

    python scripts/bench_sources.py DATA [--rounds 5] [--large GB]

DATA is a folder of images. It is packed into a temporary folder, and each form is read and decoded
in turn, `--rounds` times, by the threads that `extract` uses. The best round counts, as images a
processor second, which others on the machine disturb least, and as a ratio to the folder. `--large`
also makes a tar of so many gigabytes, and reports how much memory listing, hashing and reading all
of it adds (RssAnon: what is the process's own).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from pipeline.cores import usable_cores
from pipeline.images.datasets.scan import scan
from pipeline.images.decoding import reading
from pipeline.images.decoding.loader import load
from pipeline.images.digest import digest_all
from pipeline.images.preprocess import Preprocess


def pack(folder: Path, home: Path) -> dict[str, str]:
    """Return the form's name → DATA."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    forms = {"folder": str(shutil.copytree(folder, home / "folder"))}
    with tarfile.open(home / "photos.tar", "w") as tar:
        tar.add(folder, arcname=".")
    with tarfile.open(home / "photos.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder, arcname=".")
    with zipfile.ZipFile(home / "photos.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for path in files:
            out.write(path, path.relative_to(folder))
    forms |= {f"{end}": str(home / f"photos.{end}") for end in ("tar", "tar.gz", "zip")}
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return forms
    table = {"image": [path.read_bytes() for path in files], "label": [p.parts[-2] for p in files]}
    pyarrow.parquet.write_table(pyarrow.table(table), home / "photos.parquet", row_group_size=500)
    return forms | {"parquet": str(home / "photos.parquet")}


def rss_anon() -> int:
    """Return the bytes of memory that are this process's own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10


def through(data: str, preprocess: Preprocess, workers: int) -> tuple[int, float, float]:
    """Return images, processor seconds to list and hash them, and to read and decode them."""
    os.utime(data)  # an archive is opened anew
    began = time.process_time()
    images = scan(data)
    digests = [one.digest for one in digest_all(images.root, images.paths, None, threads=workers)]
    hashed = time.process_time()
    rows = [row for row, digest in enumerate(digests) if digest]
    files = ((images.file(row), digests[row], 0) for row in rows)
    for _ in load(files, preprocess, batch_size=64, workers=workers):
        pass
    return len(rows), hashed - began, time.process_time() - hashed


def large(size: float, home: Path, workers: int) -> None:
    """Print what a large tar adds to the process's memory."""
    place, noise = home / "large.tar", os.urandom(100_000)
    count = int(size * 1e9 / len(noise))
    with tarfile.open(place, "w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{'ab'[number % 2]}/{number:07}.jpg")
            info.size = len(noise)
            head = b"\xff\xd8\xff" + number.to_bytes(8, "big")
            tar.addfile(info, io.BytesIO(head + noise[len(head) :]))
            tar.members.clear()  # type: ignore[attr-defined]
    before = most = rss_anon()
    images = scan(str(place))
    listed = rss_anon()
    found = digest_all(images.root, images.paths, None, threads=workers)
    for row in range(len(images.paths)):
        reading.read(images.file(row))
        if row % 500 == 0:
            most = max(most, rss_anon())
    assert all(one.digest for one in found)
    print(
        f"tar of {place.stat().st_size / 1e9:.2f} GB, {count:,} members: RssAnon "
        f"{before / 1e6:.0f} MB before, {listed / 1e6:.0f} MB listed, "
        f"{most / 1e6:.0f} MB at most while it was read"
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=float, default=0.0)
    given = parser.parse_args()
    workers, preprocess = usable_cores(), Preprocess(256, 224)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        forms = pack(given.data, home)
        best: dict[str, list[float]] = {form: [float("inf")] * 2 for form in forms}
        count = 0
        for _ in range(given.rounds):
            for form, data in forms.items():
                count, *seconds = through(data, preprocess, workers)
                best[form] = [min(a, b) for a, b in zip(best[form], seconds, strict=True)]
        folder = best["folder"]
        for form, (hashing, decoding) in best.items():
            print(
                f"{form:8} list and hash {count / hashing:8,.0f} images/s "
                f"({folder[0] / hashing:.2f}), read and decode {count / decoding:7,.0f} images/s "
                f"({folder[1] / decoding:.2f})"
            )
        if given.large:
            large(given.large, home, workers)


if __name__ == "__main__":
    main()
