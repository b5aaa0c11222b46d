"""Short form of buildscripts/fuzz: the corpus, and some hundred inputs of a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from buildscripts.lib.fuzz.mutation import mutated
from buildscripts.lib.fuzz.requests import REQUESTS, ServiceUnderTest, serving
from buildscripts.lib.fuzz.targets import CORPUS, TARGETS, corpus, target

MOST_CORPUS_BYTES = 300_000


def short(examples: int) -> settings:
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_is_answered_or_refused(name: str) -> None:
    files = corpus(name)
    assert files
    with target(name) as run:
        outcomes = {file: run(data) for file, data in files.items()}
    assert not [file for file, outcome in outcomes.items() if outcome in ("over cpu", "over time")]
    assert len(set(outcomes.values())) > 1


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_answered_or_refused(name: str) -> None:
    with target(name) as run:

        @seed(1)
        @short(400)
        @given(mutated(list(corpus(name).values())))
        def one(data: bytes) -> None:
            run(data)

        one()


def test_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_CORPUS_BYTES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceUnderTest]:
    with serving(tmp_path_factory.mktemp("fuzz")) as service:
        yield service


@pytest.mark.parametrize("name", REQUESTS)
def test_arbitrary_requests_get_answers_of_the_contract(served: ServiceUnderTest, name: str) -> None:
    strategy, run = REQUESTS[name]
    outcomes = set()

    @seed(1)
    @short(150)
    @given(strategy)
    def one(sent: Any) -> None:
        outcomes.add(run(served, sent))

    one()
    assert len(outcomes) > 1, "all outcomes are the same: the inputs reach nothing"


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
