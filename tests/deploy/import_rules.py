"""Who may import whom, and what a module may do when it is imported: the rules of the house, read from the syntax.

Nothing is imported or run here. `violations` takes the sources of all modules by dotted name, so that the tests can
show it small trees that break each rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("protos", "stt_client", "gateway", "stt_server")
ENTRY_POINTS = ("stt_server.primary", "stt_server.fallback", "stt_server.testing.scripted_service")
"""The only modules of the services that may join them with the gateway."""

MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "protos": (),
    "stt_client": ("protos",),
    "gateway": ("stt_client", "protos"),
    "stt_server": ("protos",),
}
"""Beside itself."""

LOWEST = ("stt_server.audio", "stt_server.engine", "stt_server.streaming", "stt_server.routing")
TRANSPORT = (
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_status",
    "google.protobuf",
    "google.rpc",
    "protos",
)
NOT_IN_LOWEST = (*TRANSPORT, "prometheus_client")
MAY_NOT_IMPORT: Mapping[str, tuple[str, ...]] = {
    **{low: ("stt_server.streaming", "stt_server.pipeline", "stt_server.rpc") for low in LOWEST},
    "stt_server.streaming": ("stt_server.rpc",),
    "stt_server.pipeline": ("stt_server.streaming", "stt_server.rpc"),
}
"""The one direction of flow: rpc -> streaming -> pipeline -> audio, engine, routing."""

NOT_AT_IMPORT = (
    "logging.basicConfig",
    "logging.config",
    "logging.disable",
    "logging.captureWarnings",
    "os.environ",
    "os.getenv",
    "os.putenv",
    "os.chdir",
    "signal.signal",
    "asyncio.run",
    "asyncio.new_event_loop",
    "multiprocessing.set_start_method",
    "threading.Thread",
    "prometheus_client",
    "grpc.insecure_channel",
    "grpc.server",
    "grpc.aio.server",
    "faster_whisper.WhisperModel",
    "ctranslate2.models.Whisper",
    "open",
    "print",
)
"""What no module may touch while it is imported: a call of these, or of anything below them."""
READ_AT_IMPORT = ("os.environ",)
"""Of those, what is an effect even without a call."""


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module
    is_package: bool

    def package(self, level: int) -> str:
        """What `from . import` (level 1) or `from .. import` (level 2) is relative to."""
        parts = self.name.split(".")
        up = level - 1 if self.is_package else level
        return ".".join(parts[: len(parts) - up])


def sources(root: Path) -> dict[str, tuple[str, bool]]:
    """Dotted name -> text and whether it is a package, of every module of ours below `root`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = list(path.relative_to(root).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = (path.read_text("utf-8"), is_package)
    return found


def violations(texts: Mapping[str, tuple[str, bool]]) -> list[str]:
    """One line per broken rule, sorted; empty: the house is in order."""
    modules = {name: Module(name, ast.parse(text), package) for name, (text, package) in texts.items()}
    imports = {name: _imports(module, modules) for name, module in modules.items()}
    found = [line for name in modules for line in _direction(name, imports[name])]
    found += [line for name in modules if _within(name, LOWEST) for line in _purity(name, imports)]
    found += [line for module in modules.values() for line in _effects(module)]
    found += _circles(imports)
    return sorted(set(found))


def _within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def _imports(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Every module that `module` imports, at its top or inside a function; not those only for type checkers."""
    for_types = {id(node) for guard in ast.walk(module.tree) if _is_type_checking(guard) for node in ast.walk(guard)}
    found = set()
    for node in ast.walk(module.tree):
        if id(node) in for_types and not _within(module.name, LOWEST):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                # `from package import module` names a module of ours, `from package import thing` doesn't.
                found.add(name if name in modules or base in ("google", "grpc") else base)
    return found


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.package(node.level)
    return f"{package}.{node.module}" if node.module else package


def _is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    return isinstance(node.test, (ast.Name, ast.Attribute)) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _direction(name: str, imported: set[str]) -> Iterator[str]:
    package = name.partition(".")[0]
    for other in sorted(imported):
        root = other.partition(".")[0]
        joins = name in ENTRY_POINTS and root == "gateway"
        if root in PACKAGES and root not in (package, *MAY_IMPORT[package]) and not joins:
            yield f"{name} imports {other}: {package} may not import {root}"
        for low, forbidden in MAY_NOT_IMPORT.items():
            if _within(name, (low,)) and _within(other, forbidden):
                yield f"{name} imports {other}: the flow is rpc -> streaming -> pipeline -> audio, engine, routing"


def _purity(name: str, imports: Mapping[str, set[str]]) -> Iterator[str]:
    """What the lowest layer must not know, by whatever way it comes to know it."""
    way: dict[str, str] = {name: name}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for other in sorted(imports.get(current, ())):
            if _within(other, NOT_IN_LOWEST):
                yield f"{name} knows {other} (through {way[current]})"
            elif other not in way:
                way[other] = f"{way[current]} -> {other}"
                waiting.append(other)


def _circles(imports: Mapping[str, set[str]]) -> Iterator[str]:
    """Modules that import each other, lazy imports included."""
    for name in imports:
        path = _path_to(name, imports)
        # Each circle once: from the module whose name comes first.
        if path and name == min(path):
            yield f"import circle: {' -> '.join([*path, name])}"


def _path_to(name: str, imports: Mapping[str, set[str]]) -> list[str]:
    """A shortest chain of imports that leads from `name` back to it; empty if there is none."""
    reached = {name: [name]}
    waiting = [name]
    for current in waiting:
        for other in sorted(imports[current] & imports.keys()):
            if other == name:
                return reached[current]
            if other not in reached:
                reached[other] = [*reached[current], other]
                waiting.append(other)
    return []


def _effects(module: Module) -> Iterator[str]:
    names = _names(module)
    for node in _run_at_import(module.tree):
        target = node.func if isinstance(node, ast.Call) else node
        dotted = _resolve(target, names)
        touched = NOT_AT_IMPORT if isinstance(node, ast.Call) else READ_AT_IMPORT
        if dotted and _within(dotted, touched):
            yield f"{module.name}:{node.lineno} touches {dotted} at import"


def _names(module: Module) -> dict[str, str]:
    """What each imported name stands for: `Counter` -> `prometheus_client.Counter`."""
    names = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{_base(module, node)}.{alias.name}"
    return names


def _resolve(node: ast.AST, names: Mapping[str, str]) -> str:
    """The dotted name that an expression stands for; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _resolve(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _run_at_import(node: ast.AST) -> Iterator[ast.Call | ast.Attribute | ast.Name]:
    """The calls and names that are evaluated when the module is: not the bodies of functions, nor the main guard."""
    for child in _evaluated(node):
        if isinstance(child, (ast.Call, ast.Attribute, ast.Name)):
            yield child
        yield from _run_at_import(child)


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from node.decorator_list
        yield from node.args.defaults
        yield from (default for default in node.args.kw_defaults if default is not None)
    elif isinstance(node, ast.Lambda):
        yield from node.args.defaults
    elif isinstance(node, ast.If) and (_is_main(node) or _is_type_checking(node)):
        yield from node.orelse
    elif isinstance(node, ast.AnnAssign):
        yield from (part for part in (node.target, node.value) if part is not None)
    else:
        yield from ast.iter_child_nodes(node)


def _is_main(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")
