"""`--log-file`: everything told to the person, line by line with the time."""

import re

import pytest
from click.testing import CliRunner
from conftest import make_folder, picture

from pipeline import __version__
from pipeline.cli import log, main, progress

TIMED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (.*)$")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos", each=4)


def told(path):
    """Return the lines of a log without their times."""
    lines = path.read_text().splitlines()
    assert all(TIMED.match(line) for line in lines)
    return [TIMED.match(line)[1] for line in lines]


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("before", [True, False])
def test_it_holds_command_version_all_that_is_told_and_the_exit_code(
    folder, tmp_path, fake_trunk, before
):
    path = tmp_path / "l.txt"
    words = ["extract", folder, "--cache", tmp_path / "c"]
    given = ["--log-file", path]
    done = call(*given, *words) if before else call(*words, *given)
    assert done.exit_code == 0
    lines = told(path)
    typed = " ".join(map(str, [*given, *words] if before else [*words, *given]))
    assert lines[0] == f"headstart {__version__}: pipeline {typed}"
    assert lines[1:-1] == done.output.splitlines() and "8 images × 11 features" in lines[2]
    assert lines[-1] == "exit code 0"
    call(*given, "status", "--cache", tmp_path / "c")
    assert told(path)[: len(lines)] == lines and told(path)[-1] == "exit code 0"  # appended


def test_errors_and_wrong_usage_are_told_too(folder, tmp_path):
    path = tmp_path / "l.txt"
    call("extract", folder, "--pool", "mean", "--log-file", path)
    assert "Error: --pool 'mean' is not one of avg, max, gem, flat, cls, cls+avg." in told(path)
    assert told(path)[-1] == "exit code 2"
    call("--log-file", path, "extract", "--nosuch")
    usage, end = told(path)[-2:]
    assert re.fullmatch(r"Error: No such option:? '?--nosuch'?\.?", usage)  # click 8.1 and later
    assert end == "exit code 2"


def test_results_for_programs_are_left_out(folder, tmp_path, fake_trunk):
    path = tmp_path / "l.txt"
    (folder / "ants" / "bad.png").write_bytes(picture(1)[:90])
    done = call("extract", folder, "--json", "--cache", tmp_path / "c", "--log-file", path)
    assert done.exit_code == 0 and len(done.stdout) > 100
    assert len(told(path)) == 2


def test_names_with_anything_in_them_stay_in_their_timed_lines(tmp_path, fake_trunk):
    folder = make_folder(tmp_path / "a\nb\udcff", each=2)
    path = tmp_path / "l.txt"
    assert call("extract", folder, "--cache", tmp_path / "c", "--log-file", path).exit_code == 0
    assert told(path)[-1] == "exit code 0"


@pytest.mark.parametrize("where", ["nowhere/l.txt", ".", "a\0b"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(folder, tmp_path, where):
    for words in (["--log-file", tmp_path / where, "extract", folder],
                  ["extract", folder, "--log-file", tmp_path / where]):  # fmt: skip
        done = call(*words, "--cache", tmp_path / "c")
        assert done.exit_code == 1 and "Name another with --log-file." in done.stderr
        assert "cannot be written: " in done.stderr and "Traceback" not in done.output
        assert not (tmp_path / "c").exists()


def test_twice_is_refused_and_pipeline_toml_gives_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("--log-file", "a", "status", "--log-file", "b")
    assert done.exit_code == 2 and "--log-file is given twice" in done.stderr
    (tmp_path / "pipeline.toml").write_text('[status]\nlog-file = "b"\n')
    assert call("--log-file", "c", "status").exit_code == 0
    assert told(tmp_path / "c")[-1] == "exit code 0" and not (tmp_path / "b").exists()
    call("status")
    assert told(tmp_path / "b")[-1] == "exit code 0"


def test_a_disk_that_fills_up_ends_the_log_and_not_the_work(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.LogFile, "flush", full)
    done = call("status", "--log-file", tmp_path / "l", "--cache", tmp_path / "c")
    assert done.exit_code == 0 and "No table in" in done.stdout
    assert "The log file ends here: No space left on device." in done.stderr


def test_what_is_said_above_the_bars_is_logged_and_the_bars_are_not(tmp_path, monkeypatch):
    path = tmp_path / "l.txt"

    class Terminal:
        encoding, errors, shown = "utf-8", "strict", ""

        def isatty(self):
            return True

        def write(self, text):
            Terminal.shown += text
            return len(text)

        def flush(self): ...

    monkeypatch.setattr("sys.stderr", Terminal())
    with log.logged(["x"]), progress.reporter() as bars:
        log.MESSAGES.addHandler(log.LogFile(path))
        bars.start("extracting", 5)
        bars.advance(2)
        bars.say("a sentence [with brackets]")
        bars.advance(3)
    assert told(path) == ["a sentence [with brackets]"]
    assert not any(isinstance(one, log.LogFile) for one in log.MESSAGES.handlers)
    assert "extracting" in Terminal.shown and "a sentence [with brackets]" in Terminal.shown


def test_the_secrets_of_addresses_are_left_out(tmp_path):
    path = tmp_path / "l.txt"
    call("show", "https://me:sesame@127.0.0.1:9/x.tar?sig=sesame", "--log-file", path)
    call("show", "--data=https://127.0.0.1:9/x.tar?sig=sesame", "x", "--log-file", path)
    assert "sesame" not in path.read_text() and "https://127.0.0.1:9/x.tar" in path.read_text()
