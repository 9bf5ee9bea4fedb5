"""Imports point one way, and light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
#: Layer to the layers that it may import, besides itself.
MAY_IMPORT = {
    "errors": set(),
    "images": {"errors"},
    "store": {"errors"},
    "trunks": {"errors", "images", "store"},
    "heads": {"errors", "images", "store"},
    "auditing": {"errors", "heads"},
    "tuning": {"errors", "images", "store", "trunks", "heads"},
    "exports": {"errors", "images", "store", "trunks", "heads", "tuning"},
    "pages": {"errors", "images", "store", "heads", "auditing"},
    "verbs": {
        "errors",
        "images",
        "store",
        "trunks",
        "heads",
        "auditing",
        "tuning",
        "exports",
        "pages",
    },
    "cli": {
        "errors",
        "images",
        "store",
        "trunks",
        "heads",
        "auditing",
        "tuning",
        "exports",
        "verbs",
    },
    "__init__": {"errors", "store", "tuning", "verbs"},
    "__main__": {"cli"},
}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "PIL",
    "rich",
    "h5py",
    "onnx",
)


def violations(source: str, layer: str) -> list[str]:
    """Return the layers that a module's source imports and may not."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    layers = {name.split(".")[1] for name in found if name.startswith("pipeline.")}
    known = layers & set(MAY_IMPORT)
    return sorted(known - MAY_IMPORT[layer] - {layer})


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_layers_below_it(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert violations(path.read_text(), layer) == []


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("store", "from pipeline.trunks.spec import resolve"),
        ("images", "def f():\n    import pipeline.store.shards"),
        ("heads", "from pipeline.trunks import engine"),
        ("verbs", "from pipeline import cli"),
    ],
)
def test_the_layering_guard_can_fail(layer, source):
    assert len(violations(source, layer)) == 1


def test_only_the_store_uses_h5py():
    users = [p for p in modules() if "h5py" in imported(p) and p.parent.name != "store"]
    assert users == []


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def loaded_by(code: str, among: tuple[str, ...] = HEAVY) -> list[str]:
    """Return which heavy packages a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport sys\nprint(*[n for n in {among!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()


def test_importing_the_package_and_the_command_line_loads_nothing_heavy():
    assert loaded_by("import pipeline, pipeline.cli") == []


def test_help_loads_nothing_heavy():
    code = "from pipeline.cli import main\nmain(['--help'], standalone_mode=False)"
    assert loaded_by(code) == []


def test_the_store_and_the_verbs_load_no_torch():
    code = "import pipeline.store.upkeep, pipeline.verbs.extract, pipeline.cli.extract"
    assert loaded_by(code, ("torch", "torchvision", "timm", "sklearn", "PIL")) == []


def test_the_import_guard_can_fail():
    assert loaded_by("import rich") == ["rich"]


def test_a_public_name_is_the_function_on_the_second_use_too():
    code = (
        "import pipeline\n"
        "first = pipeline.extract\n"
        "import pipeline.verbs.extract\n"
        "assert pipeline.extract is first and callable(first)\n"
        "assert set(pipeline.__all__) == set(pipeline._PUBLIC)\n"
        "assert pipeline.FeatureTable.__name__ == 'FeatureTable'\n"
    )
    loaded_by(code)


def test_no_module_under_the_package_has_the_name_of_a_public_function():
    names = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert not names & set(pipeline.__all__)
