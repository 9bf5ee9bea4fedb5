"""Imports point one way, and light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import pipeline

PACKAGE = Path(pipeline.__file__).parent
#: The rooms from the lowest to the highest: a room imports from those before it. Those that share a
#: line do not import from each other, and stage two knows no trunk.
HOUSE = (
    ("errors",),
    ("arguments",),
    (
        "options",
        "progress",
        "cores",
        "clusters",
        "plotting",
        "locks",
        "sequences",
        "compiler",
        "garbage",
    ),
    ("database",),
    ("images", "store"),
    ("trunks",),
    ("extraction",),
    ("heads",),
    ("finetuning",),
    ("inference",),
    ("analysis",),
    ("reporting",),
    ("workflow",),
    ("cli",),
)
APART = {"heads": {"trunks", "extraction"}}
MAY_IMPORT = {
    room: {lower for before in HOUSE[:floor] for lower in before} - APART.get(room, set())
    for floor, rooms in enumerate(HOUSE)
    for room in rooms
} | {"__init__": {room for rooms in HOUSE[:-1] for room in rooms}, "__main__": {"cli"}}
#: Files beside sub-folders that a folder may hold.
MOST_FILES = 16
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


def imports(source: str) -> set[str]:
    """Return the dotted names that a module's source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(source: str, room: str) -> list[str]:
    """Return the rooms that a module's source imports and may not."""
    rooms = {name.split(".")[1] for name in imports(source) if name.startswith("pipeline.")}
    return sorted((rooms & set(MAY_IMPORT)) - MAY_IMPORT[room] - {room})


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the modules that import each other, directly or through others."""
    names = sorted(arrows)
    number = {name: at for at, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a in names for b in arrows[a] if b in number and b != a]
    rows, columns = zip(*pairs, strict=True)
    graph = coo_matrix(([True] * len(pairs), (rows, columns)), (len(names), len(names)))
    count, part = connected_components(graph, connection="strong")
    groups = [[name for name in names if part[number[name]] == k] for k in range(count)]
    return [group for group in groups if len(group) > 1]


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def arrows() -> dict[str, set[str]]:
    """Return module to the modules that it imports, the package's own face left out."""
    paths = {
        ".".join(["pipeline", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): path
        for path in modules()
    }
    return {
        name: {n if n in paths else n.rpartition(".")[0] for n in imports(path.read_text())}
        for name, path in paths.items()
        if name != "pipeline"
    }


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rooms_below_it(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert violations(path.read_text(), room) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("store", "from pipeline.trunks.spec import resolve"),
        ("images", "def f():\n    import pipeline.store.shards"),
        ("heads", "from pipeline.trunks import engine"),
        ("heads", "from pipeline.extraction import plan"),
        ("inference", "from pipeline import cli"),
    ],
)
def test_the_layering_guard_can_fail(room, source):
    assert len(violations(source, room)) == 1


def test_no_modules_import_each_other_in_a_circle():
    assert circles(arrows()) == []


def test_the_guard_against_circles_can_fail():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_folder_can_be_taken_in_at_a_glance():
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir()]
    assert [f for f in folders if len(list(f.glob("*.py"))) > MOST_FILES] == []


def test_every_room_says_in_one_sentence_what_it_is_for():
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


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


def test_the_store_and_stage_one_load_no_torch():
    code = (
        "import pipeline.store.upkeep, pipeline.extraction.extract, pipeline.cli.commands.extract"
    )
    assert loaded_by(code, ("torch", "torchvision", "timm", "sklearn", "PIL")) == []


def test_the_import_guard_can_fail():
    assert loaded_by("import rich") == ["rich"]


def test_a_public_name_is_the_function_on_the_second_use_too():
    code = (
        "import pipeline\n"
        "first = pipeline.extract\n"
        "import pipeline.extraction.extract\n"
        "assert pipeline.extract is first and callable(first)\n"
        "assert set(pipeline.__all__) == set(pipeline._PUBLIC)\n"
        "assert pipeline.FeatureTable.__name__ == 'FeatureTable'\n"
    )
    loaded_by(code)


def test_no_package_has_the_name_of_a_public_function():
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert not (folders | {path.stem for path in PACKAGE.glob("*.py")}) & set(pipeline.__all__)
