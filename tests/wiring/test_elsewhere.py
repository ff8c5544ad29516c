"""What goes on without a node is told from its own books, also before any place was asked."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from elias.config import Config
from elias.domain.holding import Holding, HoldingKind, Orphan
from elias.domain.run import RunState, Segment, SegmentState
from elias.services.orphans import Look
from elias.testing.nouns import a_run
from elias.wiring.orphans import elsewhere, orphans, troubles
from elias.wiring.stores import open_engine, open_stores
from elias.wiring.train import Training, make_training

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    config = Config(home=tmp_path, backends={"sagemaker": {"region": "us-east-1"}})
    with open_stores(config) as stores:
        yield make_training(config, stores, open_engine(config))


def under_way(training: Training, run_id: str, backend: str, state: SegmentState = SegmentState.RUNNING) -> None:
    training.stores.runs.add(replace(a_run(run_id), state=RunState.RUNNING, strategy=backend))
    segment = Segment(run=run_id, number=1, backend=backend, state=state, handle=f"{run_id}-0001", started_at=NOON)
    training.stores.runs.put_segment(segment)


def test_a_segment_at_a_place_that_trains_on_by_itself_is_told(training: Training):
    under_way(training, "run-far", "sagemaker")
    (row,) = elsewhere(training, [], training.stores.runs.list())
    assert (row["place"], row["run"], row["segment"]) == ("sagemaker", "run-far", "run-far-0001")
    assert row["orphaned"] is None


def test_what_this_machine_trains_ends_with_its_lease_and_is_not_told(training: Training):
    under_way(training, "run-here", "local")
    under_way(training, "run-over", "sagemaker", SegmentState.PAUSED)
    assert elsewhere(training, [], training.stores.runs.list()) == []


def test_what_the_place_said_counts_once_and_orphans_come_with_their_reason(training: Training):
    under_way(training, "run-far", "sagemaker")
    own = Holding(kind=HoldingKind.JOB, name="job-1", run="run-far", segment="run-far-0001", since=NOON)
    lost, files = replace(own, name="job-2", segment="gone"), Holding(kind=HoldingKind.FILES, name="s3://x", run="x")
    look = Look(
        place="sagemaker",
        at=NOON,
        holdings=(own, lost, files),
        orphans=(Orphan(holding=lost, why="no such run"), Orphan(holding=files, why="no such run")),
    )
    rows = elsewhere(training, [look], training.stores.runs.list())
    assert [(row["name"], row["orphaned"]) for row in rows] == [
        ("job-1", None),
        ("job-2", "no such run"),
        ("s3://x", "no such run"),
    ]


def test_a_place_that_could_not_be_asked_is_a_note(training: Training):
    assert troubles([Look(place="sagemaker", at=NOON, trouble="out of reach")]) == [
        "what goes on at sagemaker is not known: out of reach"
    ]


def test_a_place_that_a_run_used_is_watched_though_the_configuration_forgot_it(tmp_path: Path):
    config = Config(home=tmp_path)
    with open_stores(config) as stores:
        training = make_training(config, stores, open_engine(config))
        under_way(training, "run-here", "local")
        watch = orphans(config, training, training.coordinator.means.clock)
        assert list(watch._places()) == ["local"]
        assert watch.look() == [], "this machine holds nothing elsewhere"
