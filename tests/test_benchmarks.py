import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))


@pytest.mark.parametrize("form", [(), ("--json",), ("--pass",)])
def test_the_wide_benchmark_runs_on_a_small_table(tmp_path, monkeypatch, capsys, form):
    import bench_wide

    from pipeline.heads.cross_validation import search

    monkeypatch.setattr(bench_wide, "HELD", 200)
    monkeypatch.setattr(search, "LARGE", 3000)
    monkeypatch.setattr(search, "PART", 300)
    arguments = ["--rows", "600", "--features", "20", "--classes", "4", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_wide.py", *arguments, *form])
    bench_wide.main()
    out = capsys.readouterr().out
    if form == ("--json",):
        found = json.loads(out)
        assert found["rows"] == 600 and found["table_bytes"] == 800 * 20 * 2
        assert found["accuracy"] > 0.9 and found["peak_bytes"] > 0
        assert -0.02 < found["regret"] < 0.1 and found["regret_error"] < 0.02
        assert found["log_loss"] - found["known_log_loss"] == pytest.approx(found["regret"])
        assert found["notes"][0].startswith("linear: the penalties were tried on 24")
    assert "600" in out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_benchmark_of_views_draws_the_same_images_with_and_without(
    tmp_path, monkeypatch, capsys, form
):
    import bench_views
    from tables import make_table

    table = make_table(train=40, val=20, test=20, dim=6)
    own = np.asarray(table.features[:40])
    near = own[:, None] + np.random.default_rng(0).normal(0, 0.1, (40, 2, 6))
    replace(table, views=near.astype(np.float32)).write(tmp_path / "t.h5")
    words = [str(tmp_path / "t.h5"), "--shots", "3", "--views", "0,2", "--clf", "ncm"]
    words += ["--seeds", "3", "--cache", str(tmp_path / "cache"), *form]
    monkeypatch.setattr(sys, "argv", ["bench_views.py", *words])
    bench_views.main()
    out = capsys.readouterr().out
    if form:
        without, found = json.loads(out)
        assert without["gain"] == 0 and (found["shots"], found["views"]) == (3, 2)
        each = np.array(found["accuracies"]) - without["accuracies"]
        assert len(each) == 3 and found["gain"] == pytest.approx(each.mean())
    else:
        assert "3 images a class, 2 views" in out
    assert not list((tmp_path / "cache").glob("heads"))


@pytest.fixture
def photos(tmp_path):
    """Return a folder of two classes of JPEGs in `train` and `val`, six and two of each."""
    from PIL import Image

    random = np.random.default_rng(0)
    for split, each in (("train", 6), ("val", 2)):
        for kind in ("ants", "bees"):
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for number in range(each):
                blocks = random.integers(0, 256, (5, 6, 3), np.uint8)
                picture = Image.fromarray(blocks).resize((300, 240))
                picture.save(folder / f"{number}.jpg")
    return tmp_path / "photos"


RESNET = ["--trunk", "resnet18", "--weights", "random"]


def test_the_benchmark_of_extraction_compares_both_on_the_same_images(photos, monkeypatch, capsys):
    import bench_extract

    words = [str(photos), *RESNET, "--images", "40", "--repeats", "1", "--engine", "torch"]
    monkeypatch.setattr(sys, "argv", ["bench_extract.py", *words, "--precision", "fp32", "--json"])
    bench_extract.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["engine"], found["precision"]) == (40, "torch-cpu", "fp32")
    plain = found["plain"]
    assert plain["times"] == pytest.approx(found["headstart"] / plain["speed"])
    assert found["of_roofline"] == pytest.approx(found["headstart"] / found["roofline"])
    assert found["roofline"] < min(found["decode"], found["forward"])
    whole, after = 40 / found["headstart"], 32 / (found["after_start"] * found["roofline"])
    assert after == pytest.approx(whole - found["start"])
    assert plain["cosine"]["least"] > 0.999 and min(found["memory_mb"], plain["memory_mb"]) > 100


def test_the_repeated_photos_differ_in_a_comment_alone(photos, tmp_path):
    import bench_extract

    from pipeline.images.decoding.decode import decode

    paths = bench_extract.repeated(photos, 40, tmp_path / "more")
    files = [path.read_bytes() for path in paths]
    assert len(set(files)) == 40
    assert len({decode(data).numpy().tobytes() for data in files}) == 16


def test_the_benchmark_of_fine_tuning_times_an_epoch_of_each_kind(photos, monkeypatch, capsys):
    import bench_finetune

    words = [str(photos), *RESNET, "--repeats", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["bench_finetune.py", *words])
    bench_finetune.main()
    rows = json.loads(capsys.readouterr().out)["epochs"]
    kinds = [(row["unfrozen"], row["batch"]) for row in rows]
    assert kinds == [("layer4", 4), ("layer4", 64), ("all", 4), ("all", 64)]
    for row in rows:
        assert row["cached_ratio"] == pytest.approx(row["tutorial"] / row["cached"])
        assert row["live_ratio"] == pytest.approx(row["tutorial"] / row["live"])


@pytest.mark.slow
def test_the_benchmark_of_scale_measures_several_processes(tmp_path, monkeypatch, capsys):
    import bench_scale

    from pipeline.extraction import plan

    monkeypatch.setattr(plan, "SHARD_ROWS", bench_scale.BATCH)
    monkeypatch.setenv(bench_scale.MEETING, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["--batches", "6", "--seconds", "0.05", "--real-batches", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["bench_scale.py", *words, "--folder", str(tmp_path)])
    bench_scale.main()
    found = json.loads(capsys.readouterr().out)
    assert [row["processes"] for row in found["waiting"]] == [1, 2, 4]
    assert found["waiting"][0]["seconds"] > 6 * 0.05
    assert all(row["efficiency"] > 0 for rows in found.values() for row in rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["bench_store", "bench_scale"])
def test_the_benchmark_of_the_store_goes_from_digests_to_a_table_and_scans_links(
    tmp_path, monkeypatch, capsys, script
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["--rows", "600", "--links", "20", "--folder", str(tmp_path), "--json"]
    if script == "bench_store":
        words.append("--pass")
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    importlib.import_module(script).main()
    report = json.loads(capsys.readouterr().out)
    (found,) = report["found"].values()
    assert found["make"]["shards"] == 5 and report["rows"] == 600
    assert {"first", "use", "again"} <= set(found)
    for name in ("index", "plan: images", "plan: missing", "table"):
        assert all(seconds >= 0 for seconds in found["use"][name])
    assert found["scan, full memo"]["images"] == 20
    assert {"open", "scaler, basis, one pass"} < set(found["head"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_to_its_end_on_a_stand_in(monkeypatch, capsys):
    import bench_gpu

    monkeypatch.setattr(bench_gpu, "PICTURES", 4)
    monkeypatch.setattr(bench_gpu, "COMPARED", 8)
    monkeypatch.setattr(bench_gpu, "TUNED", 40)
    monkeypatch.setattr(bench_gpu, "tests", lambda: "tests: none here")
    words = ["--device", "cpu", "--images", "60", "--trunks", "resnet18", "--json"]
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *words, "--precisions", "fp32,fp16,bf16"])
    bench_gpu.main()
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    assert [one["precision"] for one in found["extract"]] == ["fp32", "bf16"]
    for one in found["extract"]:
        assert one["decode"] > 0 and one["forward"] > 0 and one["whole"] > 0
        assert one["apart"]["cosine"] > 0.99
    assert found["extract"][0]["apart"]["relative"] < 1e-5
    assert found["tune"]["seconds"] > 0 and "An epoch of layer4 of resnet18" in out[-2]
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *words, "--minutes", "0"])
    bench_gpu.main()
    out = capsys.readouterr().out
    assert out.count("not run, since the minutes are over") == 3
