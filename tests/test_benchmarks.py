import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_wide_benchmark_runs_on_a_small_table(tmp_path, monkeypatch, capsys, form):
    import bench_wide

    monkeypatch.setattr(bench_wide, "PENALTIES", (0.001, 0.1))
    arguments = ["--rows", "300", "--features", "20", "--folder", str(tmp_path), *form]
    monkeypatch.setattr(sys, "argv", ["bench_wide.py", *arguments])
    bench_wide.main()
    out = capsys.readouterr().out
    if form:
        found = json.loads(out)
        assert found["rows"] == 300 and found["table_bytes"] == 300 * 20 * 4
        assert found["accuracy"] > 0.2 and found["peak_bytes"] < 1 << 30
    assert "300" in out and not list(tmp_path.iterdir())


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
