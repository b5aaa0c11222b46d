"""Undocumented parts of uvicorn that gateway/http/protocol.py and gateway/http/websocket.py build on."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from gateway.http.protocol import GatewayProtocol
from gateway.http.websocket import GatewayWebSocket

USED = {
    H11Protocol: (
        *("access_log", "app", "conn", "connections", "cycle", "headers", "loop", "transport"),
        *("_should_upgrade", "handle_websocket_upgrade", "send_400_response", "shutdown"),
    ),
    WebSocketsSansIOProtocol: (
        *("close_sent", "close_timer", "conn", "curr_msg_data_type", "frames", "handshake_complete", "logger", "loop"),
        *("pending_ping_payload", "ping_sent_at", "pong_timer", "queue", "read_paused", "transport", "writable"),
        *("handle_close", "handle_connect", "handle_cont", "handle_parser_exception", "handle_ping"),
        *("keepalive_timeout", "schedule_ping", "send_receive_event_to_app", "shutdown", "stop_keepalive"),
    ),
}
"""Attributes and methods that the subclasses use or override, by base class."""

SUBCLASSES = {H11Protocol: GatewayProtocol, WebSocketsSansIOProtocol: GatewayWebSocket}
ADVICE = f"uvicorn {uvicorn.__version__}: compare {{}} with its source before raising the pin in setup.cfg"


@pytest.mark.parametrize("base", USED)
async def test_uvicorn_has_the_internals_that_are_used(base: type[H11Protocol | WebSocketsSansIOProtocol]) -> None:
    config = Config(app=lambda scope: None)
    config.load()
    instance = base(config, ServerState(), {}, _loop=asyncio.get_running_loop())
    missing = [name for name in USED[base] if not hasattr(instance, name)]
    assert not missing, ADVICE.format(SUBCLASSES[base].__module__)


@pytest.mark.parametrize("base", USED)
def test_overridden_methods_keep_their_parameters(base: type[H11Protocol | WebSocketsSansIOProtocol]) -> None:
    overridden = {name for name in vars(SUBCLASSES[base]) if inspect.isfunction(vars(base).get(name))}
    assert len(overridden) > 4
    changed = [
        name
        for name in overridden - {"__init__"}
        if list(inspect.signature(getattr(base, name)).parameters)
        != list(inspect.signature(getattr(SUBCLASSES[base], name)).parameters)
    ]
    assert not changed, ADVICE.format(SUBCLASSES[base].__module__)
