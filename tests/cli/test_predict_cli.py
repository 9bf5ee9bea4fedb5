"""`pipeline predict` as a person sees it."""

import csv
import io
import json
import re
from threading import Semaphore

import pytest
from click.testing import CliRunner
from conftest import picture
from photos import prepare

from pipeline.cli import main
from pipeline.inference.options import PredictOptions
from pipeline.inference.predict import Predicting, Prediction, start
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = prepare(tmp_path_factory.mktemp("cli"))
    (root / "some").mkdir()
    for name in ("blue", "red"):
        (root / "some" / f"{name}.png").write_bytes(
            (root / "photos/val" / name / "00.png").read_bytes()
        )
    (root / "some" / "half.png").write_bytes(picture(1)[:90])
    return root


def call(work, *words, **options):
    words = [*map(str, words), "--cache", str(work / "cache")]
    return CliRunner().invoke(main, ["predict", *words], **options)


def test_a_table_says_what_was_taken_how_sure_it_is_and_what_could_not_be_read(work):
    done = call(work, work / "some")
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()
    assert len(rows) == 2
    for row, name in zip(rows, ("blue", "red"), strict=True):
        assert re.fullmatch(rf"\d\.\d{{3}} \w+ +\d\.\d{{3}} \w+ +{work}/some/{name}\.png", row)
    lines = done.stderr.splitlines()
    assert re.match(r"Taking the head \w{12} \(logreg on resnet18\): accuracy .* on cv\.", lines[0])
    assert "24 images held out (cv)" in lines[1]
    assert lines[2] == f"Could not be read: {work}/some/half.png: truncated"
    assert lines[3].startswith("2 images, 1 could not be read; ")


def test_csv_has_a_row_for_each_image_the_unreadable_and_the_unsure_marked(work):
    least = ["--min-confidence", "1"]
    done = call(work, "logreg", work / "some", "--csv", "--no-calibration", *least)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == [
        "path", "prediction", "note", "class_1", "probability_1", "class_2", "probability_2",
    ]  # fmt: skip
    notes = {row["path"].rpartition("/")[2]: row["note"] for row in rows}
    assert notes == {
        "blue.png": "abstains", "half.png": "unreadable: truncated", "red.png": "abstains",
    }  # fmt: skip
    assert all(row["prediction"] == "" for row in rows)
    assert "2 below 1" in done.stderr and "as they were stored" in done.stderr
    table = call(work, "logreg", work / "some", *least).stdout
    assert all(line.startswith("? ") for line in table.splitlines())


def test_jsonl_is_an_object_a_line_and_json_one_object_with_nothing_else(work):
    done = call(work, "--with", "logreg", work / "some", "--jsonl", "--top", "1")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row.get("error") for row in rows] == [None, "truncated", None]
    assert set(rows[0]) == {"path", "prediction", "confidence", "abstains", "top"}
    whole = call(work, work / "some", "--json", "--top", "1")
    values = json.loads(whole.stdout)
    assert whole.stderr == "" and values["predictions"] == rows
    assert (values["images"], values["unreadable"]) == (2, 1)
    assert values["head"] == HEAD.folders(work / "cache")[0].name and values["why"]


def test_a_list_on_standard_input_is_read(work):
    given = f"{work}/some/red.png\n{work}/some/nothere.png\n"
    done = call(work, "-", "--jsonl", input=given)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == given.split()
    assert rows[1]["error"] == "no such file"


def test_a_list_is_answered_line_by_line(work):
    answered = Semaphore(0)
    asked = [f"{work}/some/red.png", f"{work}/some/nothere.png", f"{work}/some/blue.png"]

    def lines():
        for path in asked:
            yield f"{path}\n".encode()
            assert answered.acquire(timeout=60), f"{path} has no answer"

    done = start(["-"], PredictOptions(), Cache.at(work / "cache"), lines=lines)
    found = []
    for one in done:
        found.append((one.path, one.error))
        answered.release()
    assert found == list(zip(asked, ["", "no such file", ""], strict=True))
    assert (done.tally.images, done.tally.unreadable) == (2, 1)


def test_names_that_are_not_utf8_stay_what_they_are_in_csv(work, tmp_path):
    odd = bytes(tmp_path) + b"/na\xefve.png"
    with open(odd, "wb") as file:
        file.write(picture(1))
    done = call(work, "logreg", tmp_path, "--csv")
    assert odd in done.stdout_bytes
    assert call(work, "logreg", tmp_path).exit_code == 0
    rows = call(work, "logreg", tmp_path, "--jsonl").stdout
    assert json.loads(rows)["path"].endswith("na\udcefve.png")


ERRORS = [
    (["{work}/some/half.png"], 1, r"The one image could not be read: .*half.png: truncated\."),
    (["{work}/cache/runs"], 1, r"There are no images in .*runs"),
    ([], 2, r"No images\. Name files, folders or patterns"),
    (["x", "--json", "--csv"], 2, r"--json and --csv are two forms"),
    (["x", "--with", "feedbeef"], 1, r"no head or model 'feedbeef'"),
    (["svm", "x"], 1, r"no head of kind svm"),
    (["x", "--min-confidence", "2"], 2, r"--min-confidence 2.0 is not in \[0, 1\]"),
    (["x", "--tpo", "2"], 2, r"(?i)no such option.*--tpo.*--top"),
]


@pytest.mark.parametrize(("words", "code", "text"), ERRORS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(work, words, code, text):
    (work / "cache" / "runs").mkdir(exist_ok=True)
    done = call(work, *[word.format(work=work) for word in words])
    assert done.exit_code == code, done.output
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert "Traceback" not in done.output


def test_ctrl_c_says_how_far_it_came(work, monkeypatch):
    def stopped(self):
        for n in range(2):
            self.tally.images += 1
            yield Prediction(f"{n}.png", (("red", 1.0),))
        raise KeyboardInterrupt

    monkeypatch.setattr(Predicting, "__iter__", stopped)
    done = call(work, work / "some")
    assert done.exit_code == 130
    assert done.stdout.splitlines() == ["1.000 red   0.png", "1.000 red   1.png"]
    assert done.stderr.splitlines()[-1] == (
        "Stopped after 2 images; each row that stands is whole."
    )


def test_an_old_head_is_refused_with_what_to_do(work, tmp_path):
    import shutil

    shutil.copytree(work / "cache", tmp_path / "cache")
    folder = HEAD.folders(Cache.at(tmp_path / "cache").root)[0]
    info = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**info, "schema": 1}))
    for words in ([folder.name[:6], "x.png"], ["x.png"]):
        done = call(tmp_path, *words)
        assert done.exit_code == 1
        assert (
            f"is of schema 1, and this release reads {HEAD.schema}: make it again with `pipeline "
            "fit-head`" in (done.stderr)
        )


def test_a_damaged_file_of_a_head_is_refused_and_named_by_verify(work, tmp_path):
    import shutil

    shutil.copytree(work / "cache", tmp_path / "cache")
    folder = HEAD.folders(tmp_path / "cache")[0]
    path = folder / "head.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # a number that looks as good as any
    done = call(tmp_path, folder.name, "x.png")
    assert done.exit_code == 1 and f"{path} is damaged: its sha256 is not" in done.stderr
    assert "Make the head again: `pipeline fit-head` with the same options." in done.stderr
    verify = CliRunner().invoke(main, ["cache", "verify", "--cache", str(tmp_path / "cache")])
    assert verify.exit_code == 1 and str(path) in verify.stdout
    assert "1 result (heads, models, advice); 1 damaged or missing" in verify.stdout
