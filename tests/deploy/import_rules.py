"""The import rules of the repository, checked on the syntax trees: nothing is imported or run.

`violations` takes the sources of all modules by dotted name, so that tests can pass small trees that break a rule.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("protos", "stt_client", "gateway", "stt_server")
PACKAGES = (*SERVICES, "buildscripts", "tests")
ENTRY_POINTS = ("stt_server.primary", "stt_server.fallback", "stt_server.testing")
"""The modules of `stt_server` that may import the gateway."""

MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "protos": (),
    "stt_client": ("protos",),
    "gateway": ("stt_client", "protos"),
    "stt_server": ("protos",),
    "buildscripts": SERVICES,
    "tests": SERVICES,
}
"""Package -> the other packages that it may import."""

TESTS_OF_BUILDSCRIPTS = ("tests.buildscripts",)
"""The only tests that may import `buildscripts`."""

TESTING = ("stt_server.testing",)
"""Scripted models and process launchers, for tests and buildscripts. The services don't import them."""

TRANSPORT_FREE = ("stt_server.audio", "stt_server.engine", "stt_server.streaming", "stt_server.routing")
NOT_IN_TRANSPORT_FREE = (
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_status",
    "google.protobuf",
    "google.rpc",
    "protos",
    "prometheus_client",
)
"""Unknown to `TRANSPORT_FREE`, directly or through other modules."""
FACTS = (
    "protos.stt.v1.languages",
    "protos.stt.v1.limits",
    "protos.stt.v1.trace_context",
    "protos.stt.v1.spans",
)
"""Modules of `protos` that any module may import: plain Python, without gRPC and protobuf."""

FLOW = "rpc -> streaming -> pipeline -> cascade, admission, audio, engine, routing"
WIRING = ("stt_server.app", "stt_server.backend", "stt_server.lifecycle")
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "stt_server.cascade",
        "stt_server.admission",
        "stt_server.audio",
        "stt_server.engine",
        "stt_server.routing",
        "stt_server.request",
        "stt_server.progress",
    ),
    ("stt_server.pipeline",),
    ("stt_server.streaming",),
    ("stt_server.rpc",),
)
"""Lowest first. A layer imports none above it, nor the wiring; only `rpc` knows the service's readiness."""

RPC_MAY_IMPORT = ("stt_server.lifecycle.readiness",)

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
"""Functions that no module may call at import, nor anything below them."""

READ_AT_IMPORT = ("os.environ",)
"""The ones that are an effect even without a call."""


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module
    is_package: bool

    def package(self, level: int) -> str:
        """The package that `from . import` (level 1) or `from .. import` (level 2) is relative to."""
        parts = self.name.split(".")
        up = level - 1 if self.is_package else level
        return ".".join(parts[: len(parts) - up])


def sources(root: Path) -> dict[str, tuple[str, bool]]:
    """Source text, and whether it is a package, of every module below `root`, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = list(path.relative_to(root).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = (path.read_text("utf-8"), is_package)
    return found


def violations(texts: Mapping[str, tuple[str, bool]]) -> list[str]:
    """One line for each broken rule, sorted."""
    modules = {name: Module(name, parse(text), package) for name, (text, package) in texts.items()}
    imports = {name: _imports(module, modules) for name, module in modules.items()}
    found = [line for name in modules for line in _direction(name, imports[name])]
    found += [line for name in modules if _within(name, TRANSPORT_FREE) for line in _transport(name, imports)]
    found += _circles(imports)
    found += [line for name, module in modules.items() if _within(name, SERVICES) for line in _effects(module)]
    return sorted(set(found))


def parse(text: str) -> ast.Module:
    """`ast.parse` without garbage collection, during which a finalizer may run.

    Python before 3.11.8 and 3.12.1 then raises SystemError (https://github.com/python/cpython/issues/106905).
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if collecting:
            gc.enable()


def _within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def _imports(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """All modules that `module` imports, also inside functions.

    Imports under TYPE_CHECKING count only for transport-free modules.
    """
    for_types = {id(node) for guard in ast.walk(module.tree) if _is_type_checking(guard) for node in ast.walk(guard)}
    found = set()
    for node in ast.walk(module.tree):
        if id(node) in for_types and not _within(module.name, TRANSPORT_FREE):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                # `from package import x` may name a module or a member of the package.
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
        if not _may_import_package(name, other):
            yield f"{name} imports {other}: {package} may not import {other.partition('.')[0]}"
        if _within(other, TESTING) and _within(name, SERVICES) and not _within(name, TESTING):
            yield f"{name} imports {other}: services don't import stt_server.testing"
        if _against_flow(name, other):
            yield f"{name} imports {other}: the flow is {FLOW}"


def _may_import_package(name: str, other: str) -> bool:
    package, root = name.partition(".")[0], other.partition(".")[0]
    if root not in PACKAGES or root == package or root in MAY_IMPORT[package]:
        return True
    if root == "gateway":
        return _within(name, ENTRY_POINTS)
    return root == "buildscripts" and _within(name, TESTS_OF_BUILDSCRIPTS)


def _against_flow(name: str, other: str) -> bool:
    for height, layer in enumerate(LAYERS):
        if _within(name, layer):
            above = tuple(root for upper in LAYERS[height + 1 :] for root in upper)
            allowed = RPC_MAY_IMPORT if not above else ()
            return _within(other, (*above, *WIRING)) and not _within(other, allowed)
    return False


def _transport(name: str, imports: Mapping[str, set[str]]) -> Iterator[str]:
    """What of the transport a module knows, directly or through others."""
    path: dict[str, str] = {name: name}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for other in sorted(imports.get(current, ())):
            if _within(other, NOT_IN_TRANSPORT_FREE) and other not in FACTS:
                yield f"{name} knows {other} (through {path[current]})"
            elif other not in path:
                path[other] = f"{path[current]} -> {other}"
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
    """Imported name -> dotted name: `Counter` -> `prometheus_client.Counter`."""
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
    """Dotted name of an expression; empty if it is none."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _resolve(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _run_at_import(node: ast.AST) -> Iterator[ast.Call | ast.Attribute | ast.Name]:
    """Calls and names that are evaluated at import: not in the bodies of functions, nor under the main guard."""
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
