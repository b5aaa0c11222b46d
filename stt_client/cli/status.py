"""`stt status`: model, health, load and latency of services."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stt_client.cli.connection import add_connection, options_of, servers_of
from stt_client.cli.errors import explain
from stt_client.client import ClientOptions, SttClient
from stt_client.errors import SttError
from stt_client.results import Status

TIMEOUT_S = 5.0
MISSING = "-"


@dataclass(frozen=True)
class Report:
    """Status of one service."""

    server: str
    health: str
    """`serving`, `not serving` or `unreachable`."""
    status: Status | None = None
    error: str = ""
    """Why `status` is None; empty otherwise."""

    @property
    def ok(self) -> bool:
        return self.health == "serving"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "status",
        help="show the status of services",
        description="Show each service's model, health, load and latency. Exit status: 1 if any is down.",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per service")
    add_connection(parser, timeout=TIMEOUT_S, timeout_help=f"timeout of each service (default: {TIMEOUT_S:g})")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit status: 0, or 1 if any service is down. Raises UsageError."""
    reports = asyncio.run(_query_all(servers_of(arguments), options_of(arguments), arguments.timeout))
    if arguments.json:
        print(json.dumps([_as_dict(report) for report in reports], ensure_ascii=False, indent=2))
    elif sys.stdout.isatty():
        _print_table(reports)
    else:
        print("\n\n".join(_lines(report) for report in reports))
    for report in reports:
        if report.error:
            print(f"stt: {report.server}: {report.error}", file=sys.stderr)
    return 0 if all(report.ok for report in reports) else 1


async def _query_all(servers: Sequence[str], options: ClientOptions, timeout: float) -> list[Report]:
    return await asyncio.gather(*(_query(server, options, timeout) for server in servers))


async def _query(server: str, options: ClientOptions, timeout: float) -> Report:
    async with SttClient(server, **options) as client:
        try:
            serving, status = await asyncio.gather(client.health(timeout=timeout), client.status())
        except SttError as error:
            return Report(server, "unreachable", error=explain(error))
        return Report(server, "serving" if serving else "not serving", status)


def _as_dict(report: Report) -> dict[str, Any]:
    status = report.status.as_dict() if report.status else {}
    fields = {"server": report.server, "ok": report.ok, "health": report.health, **status}
    return {**fields, "error": report.error} if report.error else fields


def _fields(report: Report) -> dict[str, str]:
    """Fields for display, in order. A dash stands for a value that the service didn't send."""
    status = report.status
    if status is None:
        return {"server": report.server, "health": report.health}
    latency, queue = _part(status.snapshot, "latency_ms", "total"), _part(status.snapshot, "queue")
    return {
        "server": report.server,
        "health": report.health,
        "service": status.service,
        "model": status.model,
        "device": f"{status.device} ({status.compute_type})",
        "commit": status.server_commit or MISSING,
        "uptime": str(timedelta(seconds=int(status.uptime))),
        "requests": _shown(_part(status.snapshot, "requests").get("total")),
        "fallback": _fallback_share(_part(status.snapshot, "fallback")),
        **{name: _shown(latency.get(name), " ms") for name in ("p50", "p95", "p99")},
        "waiting": f"{_shown(queue.get('depth'))} of {status.limits.max_queue}",
        "running": f"{_shown(queue.get('in_flight'))} of {status.limits.max_concurrency}",
    }


def _part(snapshot: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Nested object of the snapshot; empty if a service of another version lacks it."""
    for name in path:
        inner = snapshot.get(name)
        snapshot = inner if isinstance(inner, dict) else {}
    return snapshot


def _shown(value: object, unit: str = "") -> str:
    return MISSING if value is None else f"{value}{unit}"


def _fallback_share(fallback: Mapping[str, Any]) -> str:
    used, routed = fallback.get("used", 0), sum(fallback.values())
    return f"{used / routed:.1%} ({used} of {routed})" if routed else MISSING


def _lines(report: Report) -> str:
    return "\n".join(f"{name}: {value}" for name, value in _fields(report).items())


def _print_table(reports: Sequence[Report]) -> None:
    """Print one column per service; the fields don't fit into the rows of a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [_fields(report) for report in reports]
    names = list(dict.fromkeys(name for column in columns for name in column))
    table = Table(show_header=False)
    for name in names:
        style = "bold" if name == "server" else ""
        # Text, not str, which rich parses for markup in brackets.
        table.add_row(Text(name), *(Text(column.get(name, MISSING), style=style) for column in columns))
    Console().print(table)
