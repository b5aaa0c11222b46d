"""Signal handling of the whole test run, and the failures of tests that passed when run again."""

from __future__ import annotations

import signal

import pytest

from stt_server.lifecycle.cpu_libraries import configure_cpu_libraries

SENT_BY_TESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# Before any test imports CTranslate2, so that models compute here as in the services.
configure_cpu_libraries()


def pytest_configure() -> None:
    """Start every child process with the default action for the signals that tests send.

    A shell starts background jobs with SIGINT ignored, and `nohup` ignores SIGHUP. Child processes inherit an ignored
    signal, but not a handler: replacing SIG_IGN by an empty handler still ignores the signal here, and resets it there.
    """
    for number in SENT_BY_TESTS:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why tests were run again, which pytest-rerunfailures leaves out."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"run again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
