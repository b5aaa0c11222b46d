"""`stt status`: how the services do."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from stt_client.cli.advice import explain
from stt_client.cli.connection import add_connection, options_of, servers_of
from stt_client.client import ClientOptions, SttClient
from stt_client.errors import SttError
from stt_client.results import Status

TIMEOUT_S = 5.0
NOTHING = "-"


@dataclasses.dataclass(frozen=True)
class Report:
    """What one service said."""

    server: str
    health: str
    """`serving`, `not serving` or `unreachable`."""
    status: Status | None = None
    error: str = ""
    """Why there is no status."""

    @property
    def ok(self) -> bool:
        return self.health == "serving"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "status",
        help="show how services do",
        description="Shows each service's model, health, load and latency. Exit status 1 if any is down.",
    )
    parser.add_argument("--json", action="store_true", help="a JSON list, one object a service")
    add_connection(parser, timeout=TIMEOUT_S, timeout_help=f"longest wait for an answer (default: {TIMEOUT_S:g})")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. Returns the exit status: 0, or 1 if any service is down. Raises UsageError."""
    reports = asyncio.run(_ask_all(servers_of(arguments), options_of(arguments), arguments.timeout))
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


async def _ask_all(servers: Sequence[str], options: ClientOptions, timeout: float) -> list[Report]:
    return await asyncio.gather(*(_ask(server, options, timeout) for server in servers))


async def _ask(server: str, options: ClientOptions, timeout: float) -> Report:
    async with SttClient(server, **options) as client:
        try:
            serving, status = await asyncio.gather(client.health(timeout=timeout), client.status())
        except SttError as error:
            return Report(server, "unreachable", error=explain(error))
        return Report(server, "serving" if serving else "not serving", status)


def _as_dict(report: Report) -> dict[str, Any]:
    status = dataclasses.asdict(report.status) if report.status else {}
    said = {"server": report.server, "ok": report.ok, "health": report.health, **status}
    return {**said, "error": report.error} if report.error else said


def _fields(report: Report) -> dict[str, str]:
    """What people are shown, in order. A field that the service didn't give is a dash."""
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
        "commit": status.server_commit or NOTHING,
        "uptime": str(timedelta(seconds=int(status.uptime))),
        "requests": _shown(_part(status.snapshot, "requests").get("total")),
        "fallback": _fallback_share(_part(status.snapshot, "fallback")),
        **{name: _shown(latency.get(name), " ms") for name in ("p50", "p95", "p99")},
        "waiting": f"{_shown(queue.get('depth'))} of {status.limits.max_queue}",
        "running": f"{_shown(queue.get('in_flight'))} of {status.limits.max_concurrency}",
    }


def _part(snapshot: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A part of the snapshot; empty where a service of another version has none."""
    for name in path:
        inner = snapshot.get(name)
        snapshot = inner if isinstance(inner, dict) else {}
    return snapshot


def _shown(value: object, unit: str = "") -> str:
    return NOTHING if value is None else f"{value}{unit}"


def _fallback_share(fallback: Mapping[str, Any]) -> str:
    used, routed = fallback.get("used", 0), sum(fallback.values())
    return f"{used / routed:.1%} ({used} of {routed})" if routed else NOTHING


def _lines(report: Report) -> str:
    return "\n".join(f"{name}: {value}" for name, value in _fields(report).items())


def _print_table(reports: Sequence[Report]) -> None:
    """One column a service: there are more fields than a terminal has room for in a row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = [_fields(report) for report in reports]
    names = list(dict.fromkeys(name for column in columns for name in column))
    table = Table(show_header=False)
    for name in names:
        style = "bold" if name == "server" else ""
        # Text, not str: a model's name in brackets is no markup.
        table.add_row(Text(name), *(Text(column.get(name, NOTHING), style=style) for column in columns))
    Console().print(table)
