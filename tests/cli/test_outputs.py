"""`-o` writes where nothing is, and over what Headstart wrote; never over another file."""

import pytest
from click.testing import CliRunner
from photos import paint
from pictured import pictured

from pipeline.analysis.advising import learning_curve
from pipeline.analysis.comparing import feature_cost
from pipeline.cli import main
from pipeline.store.cache import Cache

MINE = b"somebody's own \x89PNG, not to be lost"
#: Command to the file that it writes, what a foreign file is said not to be, and more words.
COMMANDS = {
    "report": ("page.html", "a page of `pipeline report`", ()),
    "advise": ("curve.png", "a picture that Headstart drew", ("--sample", "0")),
    "audit": ("list.csv", "a list of findings of `pipeline audit`", ()),
    "compare": (
        "race.png",
        "a picture that Headstart drew",
        ("--trunks", "squeezenet1_1:random", "--clf", "ncm", "--image-size", "64",
         "--precision", "fp32", "--engine", "torch", "--jobs", "1"),
    ),
    "show": ("sheet.png", "a sheet of `pipeline show`", ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    paint(root / "photos", each=5)
    pictured(Cache.at(root / "cache"), root / "pictures", count=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cost, "ROUND", 0.0)
        patch.setattr(feature_cost, "ROUNDS", 1)
        patch.setattr(learning_curve, "GRID", (1e-3, 1e-1))
        yield root


def call(place, name, flag, path):
    subject = [str(place / "photos")] if name == "compare" else []
    words = [name, *subject, *COMMANDS[name][2], flag, str(path), "--cache", str(place / "cache")]
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_foreign_file_is_kept_and_its_own_replaced(place, tmp_path, name):
    file, what, _ = COMMANDS[name]
    path = tmp_path / file
    path.write_bytes(MINE)
    done = call(place, name, "-o", path)
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[-1] == (
        f"Error: {path} is there and is not {what}: name another file, or remove that one."
    )
    assert path.read_bytes() == MINE and done.stdout == ""  # refused before the work
    path.unlink()
    assert call(place, name, "--output", path).exit_code == 0
    first = path.stat()
    done = call(place, name, "-o", path)
    assert done.exit_code == 0, done.output
    assert path.stat().st_ino != first.st_ino  # written whole again, and renamed


def test_the_list_beside_a_page_is_looked_at_too(place, tmp_path):
    listing = tmp_path / "page.audit.csv"
    listing.write_bytes(b"kind,path\nmine,1\n")
    done = call(place, "report", "-o", tmp_path / "page.html")
    assert done.exit_code == 1 and f"{listing} is there and is not a list of" in done.stderr
    assert listing.read_bytes() == b"kind,path\nmine,1\n"
    assert not (tmp_path / "page.html").exists()
    listing.unlink()
    for _ in range(2):
        assert call(place, "report", "-o", tmp_path / "page.html").exit_code == 0
    assert listing.read_text().startswith("kind,path,split,label")


def test_a_folder_in_the_way_is_named(place, tmp_path):
    (tmp_path / "page.html").mkdir()
    done = call(place, "report", "-o", tmp_path / "page.html")
    assert done.exit_code == 1 and "page.html is a folder; name a file in it." in done.stderr
