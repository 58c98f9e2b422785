"""A module imports only from those above it in DESIGN's table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trio_mqtt

PACKAGE = Path(trio_mqtt.__file__).parent
LAYERS = [
    "_errors",
    "_topics",
    "_trie",
    "_packets",
    "_records",
    "_framing",
    "_codec311",
    "_outbox",
    "_requests",
    "_journal",
    "_packet_ids",
    "_transfers",
    "_deliveries",
    "_subscriptions",
    "_session",
    "_recovery",
    "_remainder",
    "_bounds",
    "_checks",
    "_websocket",
    "_dialers",
    "_transport",
    "_persistence",
    "_threaded",
    "_directory",
    "_file_system",
    "_sqlite",
    "_foreign",
    "_turns",
    "_connection",
    "_exchange",
    "_large_payload",
    "_big_message",
    "_inbox",
    "_unclaimed",
    "_router",
    "_channels",
    "_settings",
    "_stored_session",
    "_backoff",
    "_connector",
    "_answers",
    "_storer",
    "_reception",
    "_supervisor",
    "_scopes",
    "_statistics",
    "_subscription_scope",
    "_interface",
    "_client",
    "_open_client",
    "__init__",
    "testing",
    "cli",
    "__main__",
]
PURE = LAYERS[: LAYERS.index("_websocket")]
WITHOUT_TRIO = {"asyncio", "threading", "socket", "ssl", "time", "random", "logging"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """The modules that it imports: ours by their layer, others by their first name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {_ours(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= _imported_from(file, node)
    return names


def _imported_from(file: Path, node: ast.ImportFrom) -> set[str]:
    if node.level:
        depth = len(file.relative_to(PACKAGE).parts) - node.level
        if depth > 0 or (depth == 0 and file.parent != PACKAGE):
            return {layer(file)}
        if node.module:
            return {node.module.partition(".")[0]}
        return {alias.name for alias in node.names}
    assert node.module is not None
    if node.module == "trio_mqtt":
        names = {alias.name for alias in node.names}
        return {name if name in LAYERS else "__init__" for name in names}
    return {_ours(node.module)}


def _ours(name: str) -> str:
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] or "__init__" if first == "trio_mqtt" else first


@pytest.mark.parametrize("file", modules(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_up(file: Path) -> None:
    mine = LAYERS.index(layer(file))
    ours = imports(file) & set(LAYERS) - {layer(file)}
    assert sorted(name for name in ours if LAYERS.index(name) >= mine) == []


@pytest.mark.parametrize("name", PURE)
def test_the_pure_layers_do_no_io(name: str) -> None:
    imported = imports(PACKAGE / f"{name}.py")
    assert not imported & WITHOUT_TRIO
    assert "trio" not in imported or name == "_errors"


def test_the_checker_sees_relative_and_absolute_imports() -> None:
    assert {"_errors", "_outbox", "attrs"} <= imports(PACKAGE / "_session.py")
    assert {"_packets", "_codec311"} <= imports(PACKAGE / "testing" / "_server311.py")
    assert {"_client", "_errors"} <= imports(PACKAGE / "__init__.py")


def test_the_package_needs_neither_pytest_nor_the_testing_tools() -> None:
    for file in modules():
        if layer(file) != "testing":
            assert "pytest" not in imports(file)
        if layer(file) not in ("testing", "cli", "__main__"):
            assert "testing" not in imports(file)
