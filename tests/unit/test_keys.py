"""API keys: which are accepted, which are refused, and that none leaks."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import pytest

from stt_server.config import ApiKey
from stt_server.errors import Unauthenticated
from stt_server.security.key_ring import KeyRing

WEB = "web-0123456789abcdef"
APP = "app:with:colons=="
RING = KeyRing([ApiKey("web", WEB), ApiKey("app", APP)])


@pytest.mark.parametrize("authorization", [None, "", "Bearer x", "Basic x", b"\xff", [], ["a", "b"]])
def test_without_keys_access_is_open(authorization: str | bytes | Sequence[str] | None) -> None:
    assert KeyRing([]).identify(authorization) is None


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {WEB}",
        f"bearer {WEB}",
        f"BEARER   {WEB} ",
        f"\tBearer \t{WEB}\t",
        f"Bearer {WEB}".encode(),
        [f"Bearer {WEB}"],
        (f"Bearer {WEB}".encode(),),
    ],
)
def test_a_known_key_is_identified_by_name(authorization: str | bytes | Sequence[str | bytes]) -> None:
    assert RING.identify(authorization) == "web"


def test_every_configured_key_is_accepted() -> None:
    assert RING.identify(f"Bearer {APP}") == "app"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        [],
        "Bearer",
        "Bearer ",
        WEB,
        f"Basic {WEB}",
        f"Bearer{WEB}",
        f"Bearer {WEB}x",
        f"Bearer {WEB[:-1]}",
        f"Bearer {WEB.upper()}",
        f"Bearer {WEB} {WEB}",
        f"Bearer web:{WEB}",
        "Bearer clé-größe-键",
        "Bearer \ud800\udcff",
        b"Bearer \xff\xfe\x00",
        "\x00",
        [f"Bearer {WEB}", f"Bearer {WEB}"],
        [f"Bearer {WEB}", "Bearer other"],
    ],
)
def test_anything_else_is_refused_with_advice(
    authorization: str | bytes | Sequence[str] | None,
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        RING.identify(authorization)
    assert "send 'Authorization: Bearer KEY'" in caught.value.message
    assert caught.value.message.isascii()
    assert WEB not in caught.value.message


@pytest.mark.parametrize("token", [WEB, APP, "wrong"])
def test_all_keys_are_compared_whichever_matches(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def recorded(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr("stt_server.security.key_ring.hmac.compare_digest", recorded)
    try:
        RING.identify(f"Bearer {token}")
    except Unauthenticated:
        assert token == "wrong"
    assert compared == [(32, 32), (32, 32)]


def test_unnamed_keys_are_named_by_position() -> None:
    ring = KeyRing([ApiKey("", "one"), ApiKey("web", "two"), ApiKey("", "three")])
    assert [ring.identify(f"Bearer {key}") for key in ("one", "two", "three")] == ["key1", "web", "key3"]


@pytest.mark.parametrize(
    "keys",
    [
        [ApiKey("a", "same"), ApiKey("b", "same")],
        [ApiKey("a", "one"), ApiKey("a", "two")],
        [ApiKey("key2", "one"), ApiKey("", "two")],
    ],
)
def test_duplicate_keys_and_names_are_refused(keys: list[ApiKey]) -> None:
    with pytest.raises(ValueError, match="duplicate key") as caught:
        KeyRing(keys)
    assert "one" not in str(caught.value).split()


def test_a_key_ring_stores_no_key() -> None:
    assert WEB not in repr(vars(RING))
