import os

import pytest

from pipeline import cores


@pytest.mark.parametrize(
    ("quota", "affinity", "want"),
    [
        ("max 100000", 8, 8),
        ("200000 100000", 8, 2),
        ("50000 100000", 8, 1),
        ("900000 100000", 4, 4),
    ],
)
def test_affinity_and_the_cgroups_quota_count(tmp_path, monkeypatch, quota, affinity, want):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert cores.usable_cores() == want


def test_a_system_without_affinity_or_cgroups_gives_its_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.usable_cores() == 6


def test_free_memory_is_what_the_system_and_the_cgroup_leave(tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ("MEMORY", "LIMIT", "IN_USE")}
    for name, path in files.items():
        monkeypatch.setattr(cores, name, path)
    assert cores.free_memory() == float("inf")
    files["MEMORY"].write_text("MemTotal: 100 kB\nMemAvailable:    50 kB\n")
    assert cores.free_memory() == 50 * 1024
    files["LIMIT"].write_text("40000\n")
    files["IN_USE"].write_text("10000\n")
    assert cores.free_memory() == 30000
    files["LIMIT"].write_text("max\n")
    assert cores.free_memory() == 50 * 1024
