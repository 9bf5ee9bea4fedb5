"""A head's or model's folder says what its files are, and what is no longer so."""

import json

import pytest
from records import head_info, model_info

from pipeline.errors import DamagedError, PipelineError
from pipeline.store import upkeep
from pipeline.store.cache import Cache
from pipeline.store.results import HEAD, MODEL

FILES = {HEAD: ["head.safetensors", "predictions-val.csv"], MODEL: ["model.safetensors", "x.png"]}
INFO = {HEAD: head_info(spread=0.1), MODEL: model_info(activations="f" * 64, moved={"head": 0.1})}


@pytest.fixture(params=[HEAD, MODEL], ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    """Return the folder of a result in a cache."""
    folder = tmp_path / "cache" / f"{kind.name}s" / "0123456789ab"
    folder.mkdir(parents=True)
    for number, name in enumerate(FILES[kind]):
        (folder / name).write_bytes(bytes(range(number, 200)))
    kind.write(folder, INFO[kind])
    return folder


def verify(folder):
    return upkeep.verify(Cache.at(folder.parents[1]))


def test_what_was_written_is_whole(kind, folder):
    verdict = verify(folder)
    assert verdict.problems == {} and verdict.results == 1
    info = kind.read(folder)
    assert sorted(info.files) == sorted(FILES[kind])
    assert kind.write(folder, info) == info == kind.read(folder)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty", "longer", "missing"])
def test_a_file_that_is_damaged_or_missing_is_named_with_what_to_do(kind, folder, fault, number):
    path = folder / FILES[kind][number]
    data = path.read_bytes()
    faults = {
        "flipped": data[:50] + bytes([data[50] ^ 1]) + data[51:],
        "truncated": data[:-1],
        "empty": b"",
        "longer": data + b"x",
    }
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(faults[fault])
    problems = verify(folder).problems
    assert list(problems) == [str(path)]
    assert str(path) in problems[str(path)]
    assert ("is missing" if fault == "missing" else "is damaged") in problems[str(path)]
    assert f"again: `{kind.makes}` with the same options." in problems[str(path)]
    with pytest.raises(DamagedError, match=path.name):
        kind.check(folder, kind.read(folder), path.name)


def test_a_description_that_was_changed_or_is_gone_is_named(kind, folder):
    path = folder / f"{kind.name}.json"
    text = path.read_text()
    path.write_text(text.replace("0.1", "0.7", 1))
    assert "is not what was written" in verify(folder).problems[str(path)]
    path.write_text(text[:-20])
    assert "is damaged" in verify(folder).problems[str(folder)]
    path.unlink()
    assert f"There is no {kind.name}" in verify(folder).problems[str(folder)]


def test_a_list_of_files_that_leads_elsewhere_is_refused_before_it_is_read(kind, folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    path = folder / f"{kind.name}.json"
    for files in (
        {"../../../secret": "0" * 64},
        {str(tmp_path / "secret"): ""},
        ["x"],
        7,
        {"": ""},
    ):
        path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
        with pytest.raises(DamagedError, match=r"its files are no list|for files, not an object"):
            kind.read(folder)
        assert list(verify(folder).problems) == [str(folder)]


def test_a_system_error_is_never_a_damaged_file(kind, folder, monkeypatch):
    from pipeline.store import results

    def broken(path):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(results, "_sha256", broken)
    with pytest.raises(
        PipelineError, match=r"Too many open files\. This is a system error"
    ) as caught:
        verify(folder)
    assert not isinstance(caught.value, DamagedError)
