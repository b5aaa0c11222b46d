"""The client address that a rate limit counts."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_server.security.addresses import client_address

TRUSTED = tuple(map(ip_network, ("127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8")))
PROXY = "ipv4:10.0.0.1:4000"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:203.0.113.7:50000", "203.0.113.7"),
        ("ipv4:203.0.113.7", "203.0.113.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001%3Adb8%3A1%3A2%3A%3A1%5D%3A50000", "2001:db8:1:2::/64"),
        ("ipv6:[::1]:50000", "::1"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("ipv6:[::ffff:203.0.113.7]:50000", "203.0.113.7"),
        ("unix:", "unix"),
        ("unix:/run/stt/grpc.sock", "unix"),
        ("unix-abstract:stt", "unix"),
        ("", "unknown"),
        ("vsock:3:4", "unknown"),
        ("ipv4:999.1.1.1:4", "unknown"),
    ],
)
def test_without_forwarding_the_peer_is_the_client(peer: str, expected: str) -> None:
    assert client_address(peer, None, TRUSTED) == expected
    assert client_address(peer, "", TRUSTED) == expected


@pytest.mark.parametrize("peer", ["ipv4:203.0.113.7:1", "ipv6:[2001:db8::7]:1", "", "vsock:3:4"])
def test_forwarding_by_an_untrusted_peer_is_ignored(peer: str) -> None:
    assert client_address(peer, "198.51.100.1", TRUSTED) == client_address(peer, None, TRUSTED)


@pytest.mark.parametrize(
    "peer", [PROXY, "ipv4:127.0.0.1:1", "ipv6:[::1]:1", "ipv6:%5B::ffff:10.1.1.1%5D:1", "unix:", "unix:/x"]
)
def test_forwarding_by_a_trusted_peer_counts(peer: str) -> None:
    assert client_address(peer, "203.0.113.7", TRUSTED) == "203.0.113.7"


@pytest.mark.parametrize(
    ("forwarded_for", "expected"),
    [
        ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("203.0.113.7,10.0.0.2,fd00::1, 127.0.0.1", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.9.9.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("garbage, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8:1:2::9]:4711", "2001:db8:1:2::/64"),
        ('"[2001:db8:1:2::9]"', "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("  203.0.113.7\t", "203.0.113.7"),
    ],
)
def test_the_rightmost_untrusted_address_is_the_client(forwarded_for: str, expected: str) -> None:
    assert client_address(PROXY, forwarded_for, TRUSTED) == expected


@pytest.mark.parametrize(
    "entry", ["unknown", "_hidden", "", "1.2.3", "01.2.3.4", "1.2.3.4/8", "a:b", "[", "💥", "٣.1.1.1"]
)
def test_an_unreadable_entry_stops_at_the_proxy_before_it(entry: str) -> None:
    assert client_address(PROXY, f"203.0.113.7, {entry}, 10.0.0.2", TRUSTED) == "10.0.0.2"
    assert client_address(PROXY, f"203.0.113.7,{entry}", TRUSTED) == "10.0.0.1"
    assert client_address("unix:", f"203.0.113.7,{entry}", TRUSTED) == "unix"


def test_without_proxies_only_a_unix_socket_may_forward() -> None:
    assert client_address("ipv4:127.0.0.1:1", "203.0.113.7", ()) == "127.0.0.1"
    assert client_address("unix:", "198.51.100.1, 203.0.113.7", ()) == "203.0.113.7"


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    one, two, other = (
        client_address(f"ipv6:[2001:db8:0:{tail}]:1", None, ()) for tail in ("1::1", "1:ffff::2", "2::1")
    )
    assert one == two != other


@pytest.mark.parametrize(
    ("listen", "expected"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("unix:{}/s", "unix")]
)
async def test_peer_strings_of_grpc_are_understood(listen: str, expected: str, tmp_path: Path) -> None:
    peers: list[str] = []

    async def record(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        peers.append(context.peer())
        return request

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(record)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peer", {"Note": handler}),))
    address = listen.format(tmp_path)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        pytest.skip(f"can't listen on {listen}")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address.replace(":0", f":{port}")) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Peer/Note")
            await call(b"", timeout=10)
    finally:
        await server.stop(None)
    assert [client_address(peer, None, ()) for peer in peers] == [expected]


@given(st.lists(st.one_of(st.ip_addresses().map(str), st.text(max_size=12)), max_size=6))
def test_entries_left_of_the_proxys_are_ignored(forged: list[str]) -> None:
    forwarded_for = ",".join([*forged, "203.0.113.7"])
    assert client_address(PROXY, forwarded_for, TRUSTED) == "203.0.113.7"


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_input_raises(peer: str, forwarded_for: str) -> None:
    for start in ("", "ipv4:", "ipv6:", "unix:"):
        assert client_address(start + peer, forwarded_for, TRUSTED)
