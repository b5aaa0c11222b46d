"""Rate limit under concurrency: of simultaneous callers exactly a burst passes, over every protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from stt_server.testing.load import Grpc, Rest, Tally, Transport, offer
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.speech import silence, wav_of

BURST = 60
CALLERS = 200
KEY = "the-key-of-the-web-front"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServiceProcess]]:
    """Services without and with keys, whose buckets refill by one request per 100 s."""
    keys: dict[str, object] = {"RATE_LIMIT_RPS": 0.01, "RATE_LIMIT_BURST": BURST, "MAX_QUEUE": CALLERS}
    keys["VAD_FILTER"] = "false"
    folder = tmp_path_factory.mktemp("limited")
    services = {
        "address": ServiceProcess("primary", folder / "address", keys, Script()),
        "key": ServiceProcess("primary", folder / "key", keys | {"API_KEYS": f"web:{KEY}"}, Script()),
    }
    with running(*services.values()):
        yield services


@pytest.mark.parametrize(
    ("bucket", "transports", "metadata"),
    [
        ("address", ["grpc"], ("x-forwarded-for", "203.0.113.1")),
        ("address", ["rest"], ("x-forwarded-for", "203.0.113.2")),
        ("address", ["grpc", "rest"], ("x-forwarded-for", "203.0.113.3")),
        ("key", ["grpc", "rest"], ("authorization", f"Bearer {KEY}")),
    ],
    ids=["over gRPC", "over REST", "over both", "with a key, over both"],
)
async def test_exactly_a_burst_passes(
    limited: dict[str, ServiceProcess], bucket: str, transports: list[str], metadata: tuple[str, str]
) -> None:
    service = limited[bucket]
    wav = wav_of(silence(0.1))
    async with service.channel() as channel:
        rest = Rest(service.http_port, wav, [metadata])
        made: dict[str, Transport] = {"grpc": Grpc(channel, wav, [metadata]), "rest": rest}
        tally = Tally(await offer([made[name] for name in transports], 1e6, CALLERS / 1e6, [30.0]))
        rest.close()
    assert Counter(outcome.error for outcome in tally.outcomes) == {"": BURST, "rate_limited": CALLERS - BURST}
    waits = [outcome.retry_after_s or 0.0 for outcome in tally.outcomes if outcome.error]
    assert min(waits) > 50, "retry-after is the time until the next token"
