"""The layout that DESIGN fixes: folders of at most ten modules that import in one direction, and a pure core."""

import ast
import pkgutil
from pathlib import Path

import pytest

import charlstm

PACKAGE = Path(charlstm.__file__).parent
ORDER = ("support", "config", "data", "core", "analysis", "runs", "training", "compare", "report", "cli")
MODULES = sorted(PACKAGE.rglob("*.py"))
INSIDE = [path for path in MODULES if path.parent != PACKAGE or path.name == "config.py"]
IMPURE = ("os", "pathlib", "sys", "io", "shutil", "tempfile", "socket", "subprocess", "rich", "json", "logging")


def place(module: str) -> str:
    """The folder, or config.py, of a dotted name."""
    return module.split(".")[1]


def imports(path: Path) -> list[str]:
    """Dotted names of what a module imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def home(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_folders_to_its_left(path: Path):
    ours = [each for each in imports(path) if each.startswith("charlstm.") and place(each) in ORDER]
    wrong = [each for each in ours if ORDER.index(place(each)) > ORDER.index(home(path))]
    assert not wrong


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_and_analysis_know_no_files_no_terminal_and_no_input_error(path: Path):
    if home(path) in ("core", "analysis"):
        assert not [each for each in imports(path) if each.split(".")[0] in IMPURE or each.endswith("InputError")]
        assert not [each for each in imports(path) if each.startswith("charlstm.support")]
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [each.id for each in calls if isinstance(each, ast.Name) and each.id in ("open", "print", "input")]


@pytest.mark.parametrize(("package", "only"), [("flax", "core/flax_stack.py"), ("orbax", "runs/checkpoint.py")])
def test_a_framework_is_imported_in_one_module(package: str, only: str):
    users = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(each.split(".")[0] == package for each in imports(path))
    ]
    assert users == [only]


def test_folders_are_small():
    for folder in {path.parent for path in INSIDE}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 10, folder


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_the_core_is_small():
    assert lines([path for path in INSIDE if home(path) == "core"]) <= 1750


def test_the_package_is_small():
    """A feature that needs more raises the number, and says so."""
    assert lines(MODULES) <= 13_500


def test_tests_mirror_the_folders():
    tests = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and list(path.glob("test_*.py"))}
    folders = {name for name in ORDER if (PACKAGE / name).is_dir()}
    assert folders <= tests


def test_no_public_name_is_that_of_a_subpackage():
    subpackages = {module.name for module in pkgutil.iter_modules(charlstm.__path__)}
    assert not subpackages & set(charlstm.__all__)
    assert len(charlstm.__all__) <= 20
    assert all(getattr(charlstm, name).__doc__ for name in charlstm.__all__)
