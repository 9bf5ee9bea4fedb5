import json
import sys
from pathlib import Path

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
