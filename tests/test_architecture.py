"""The house rules that a reader of docs/design.md relies on: who may import whom, what is locked, what is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = ("flows", "crawler", "warehouse", "gptface_core", "sample_web")
ALLOWED = {
    "crawler": {"crawler", "warehouse.schema"},
    "warehouse": {"warehouse"},
    "gptface_core": {"gptface_core"},
    "sample_web": {"sample_web"},
}
# What gptface_core may import when it is imported itself; everything else where it is used.
CORE_AT_IMPORT = {"torch", "numpy", "transformers", "safetensors", "gptface_core"}


def _modules(room: str) -> list[Path]:
    found = sorted((PROJECT / room).rglob("*.py"))
    assert found, f"no modules in {room}"
    return found


def _imports(tree: ast.AST, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that are imported; with `top_level_only` not those inside functions or TYPE_CHECKING."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_level_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        pending.extend(ast.iter_child_nodes(node))


def _within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_the_design_allows(room: str) -> None:
    for path in _modules(room):
        ours = [name for name in _imports(ast.parse(path.read_text())) if name.split(".")[0] in ROOMS]
        wrong = [name for name in ours if not _within(name, ALLOWED[room])]
        # `crawler/errors.py` and the like are a room's own: only foreign rooms count.
        assert not wrong, f"{path.relative_to(PROJECT)} imports {wrong}"


def test_prefect_is_imported_by_the_flow_modules_alone() -> None:
    users = [
        path.relative_to(PROJECT)
        for room in ROOMS
        for path in _modules(room)
        if any(name.split(".")[0].startswith("prefect") for name in _imports(ast.parse(path.read_text())))
    ]
    assert users, "no module uses prefect: this test looks at the wrong place"
    assert {path.parent for path in users} == {Path("flows")}


def test_the_core_package_needs_four_packages_to_be_imported() -> None:
    for path in _modules("gptface_core"):
        names = {name.split(".")[0] for name in _imports(ast.parse(path.read_text()), top_level_only=True)}
        foreign = names - CORE_AT_IMPORT - set(sys.stdlib_module_names)
        assert not foreign, f"{path.relative_to(PROJECT)} imports {sorted(foreign)} at module level"


@pytest.mark.e2e
def test_the_core_package_works_without_orchestration_and_tables() -> None:
    blocked = ("prefect", "duckdb", "img2dataset", "insightface", "scrapy")
    code = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "import gptface_core, gptface_core.model, gptface_core.training, gptface_core.evaluation\n"
        "import gptface_core.editing, gptface_core.faces.detector\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lock_leaves_out_what_breaks_other_packages() -> None:
    lines = [line for line in (PROJECT / "requirements.lock").read_text().splitlines() if line[:1] not in ("", "#")]
    names = {line.split("==")[0].strip().lower() for line in lines}
    assert names.isdisjoint({"dataclasses", "opencv-python"})
    assert all("==" in line and "://" not in line for line in lines)
    linux_only = [line for line in lines if line.startswith(("nvidia-", "cuda-", "triton"))]
    assert all('sys_platform == "linux"' in line for line in linux_only)


def test_the_lock_holds_every_requirement_of_the_project() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"]) + [r for extra in project["optional-dependencies"].values() for r in extra]
    canonical = [word.replace("_", "-").lower() for word in (PROJECT / "requirements.lock").read_text().splitlines()]
    locked = {line.split("==")[0].strip() for line in canonical}
    for requirement in wanted:
        name = requirement.split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip().replace("_", "-").lower()
        assert name in locked, f"{name} is required but not locked"


@pytest.mark.e2e
def test_pip_check_complains_about_the_two_left_out_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    complaints = sorted(line for line in done.stdout.splitlines() if line.strip())
    assert len(complaints) == 2, complaints
    assert complaints[0].startswith("img2dataset") and "requires dataclasses" in complaints[0]
    assert complaints[1].startswith("insightface") and "requires opencv-python" in complaints[1]


def test_no_committed_file_is_large_or_holds_a_path_of_this_machine() -> None:
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=PROJECT, check=False)
    files = [PROJECT / line for line in done.stdout.splitlines()]
    if done.returncode or not files:
        pytest.skip("not a git checkout")
    for path in filter(Path.is_file, files):
        assert path.stat().st_size <= 2**20, f"{path.name} is over 1 MiB"
        assert str(PROJECT.parent).encode() + b"/" not in path.read_bytes(), f"{path.name} holds a path of this machine"


def test_nothing_is_inserted_into_the_lake_by_position() -> None:
    """New columns of a migrated table come last there, wherever the contract has them."""
    from warehouse.tables import GROWING, HISTORY

    tables = "|".join((*HISTORY, *GROWING))
    inserts = re.compile(rf"INSERT INTO (?:\w+\.)?(?:{tables})\s+(?!BY NAME|\()\w+")
    for room in ("warehouse", "flows", "crawler"):
        for path in _modules(room):
            assert not inserts.search(path.read_text()), f"{path.relative_to(PROJECT)}: name the columns"
