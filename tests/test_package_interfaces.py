"""Structure of the package: few entries at the top, and packages that use only the public names of each other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import refinenet

ROOT = Path(refinenet.__file__).parent
REPOSITORY = Path(__file__).parents[1]


@cache
def listed(package: Path) -> set[str]:
    """The names in the `__all__` of a package."""
    for node in ast.parse((package / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@cache
def imports(path: Path) -> list[ast.ImportFrom]:
    """The `from ... import ...` statements of a module that name a module of the package."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("refinenet.")]


@cache
def attributes(path: Path) -> set[tuple[str, str]]:
    """Packages that a module imports whole, as in `from refinenet import models`, and the names it uses of them."""
    tree = ast.parse(path.read_text("utf-8"))
    doors = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "refinenet"
        for alias in node.names
        if (ROOT / alias.name / "__init__.py").exists()
    }
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return {(node.value.id, node.attr) for node in found if isinstance(node.value, ast.Name) and node.value.id in doors}


def is_public(module: str, name: str) -> bool:
    """Whether a package that contains the module lists the name, or the name is a package itself."""
    parts = module.split(".")[1:]
    packages = [ROOT.joinpath(*parts[:k]) for k in range(1, len(parts) + 1)]
    return any(
        name in listed(package) or (package / name / "__init__.py").exists() for package in packages if package.is_dir()
    )


def test_packages_use_only_listed_names_of_each_other() -> None:
    private = set()
    for path in ROOT.rglob("*.py"):
        home = path.relative_to(ROOT).parts[0]
        for node in imports(path):
            package = str(node.module).split(".")[1]
            if package == home or not (ROOT / package).is_dir():
                continue
            private |= {
                (str(path.relative_to(ROOT)), node.module, alias.name)
                for alias in node.names
                if not is_public(str(node.module), alias.name)
            }
        private |= {
            (str(path.relative_to(ROOT)), package, name)
            for package, name in attributes(path)
            if name not in listed(ROOT / package)
        }
    assert not private


def imported_from(package: str) -> set[str]:
    """The names that other packages and the benchmarks import from a package."""
    found = set()
    for path in (*ROOT.rglob("*.py"), *(REPOSITORY / "benchmarks").rglob("*.py")):
        if path.is_relative_to(ROOT / package):
            continue
        for node in imports(path):
            if f"{node.module}.".startswith(f"refinenet.{package}."):
                found |= {alias.name for alias in node.names}
        found |= {name for door, name in attributes(path) if door == package}
    return found


def test_doors_list_only_what_is_used() -> None:
    pages = [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "docs" / "how-to").glob("*.md"),
    ]
    examples = re.findall(r"```python\n.*?```", "".join(page.read_text("utf-8") for page in pages), flags=re.DOTALL)
    documented = set(re.findall(r"\w+", "".join(examples)))
    idle = {
        (door.parent.name, name)
        for door in ROOT.glob("*/__init__.py")
        for name in listed(door.parent) - imported_from(door.parent.name) - documented
    }
    assert not idle


def test_the_top_level_has_few_entries() -> None:
    assert len([path for path in ROOT.iterdir() if path.name != "__pycache__"]) <= 20
