"""Two homes that share a store: what a run leaves there, and who may go on with it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from elias.adapters.blobs import FileBlobs, SharedBlobs
from elias.adapters.stores.database import open_database
from elias.adapters.stores.files import SqlFiles
from elias.domain.label import Label
from elias.domain.run import RunState, SegmentState
from elias.errors import NotFound, Refused
from elias.services.follow import Stopping
from elias.services.run_share import RunShare
from elias.services.runs import Runs
from elias.testing.journal import JournalSteps


@pytest.fixture
def files(tmp_path):
    database = open_database(None, tmp_path / "shared.db")
    yield SqlFiles(database)
    database.close()


def sharing(world, files):
    coordinator = world.coordinator()
    object.__setattr__(coordinator.means, "share", RunShare(files))
    return coordinator


def test_a_run_goes_on_from_what_another_home_left_and_gives_the_same_bytes(world, files):
    alone = world.carry(world.run(segment_steps=6))
    world.corpus = world.add_corpus(Label.PRIVATE)
    run = world.run(segment_steps=6)
    first = sharing(world, files)
    for step in (lambda: first.plan_next(run.id, 0), lambda: first.submit(run.id, 1)):
        step()
    first.collect(run.id, 1, first.follow(run.id, 1))
    first.plan_next(run.id, 0)
    shutil.rmtree(world.home / "runs")
    sharing(world, files).carry(JournalSteps([]), run.id)
    done = world.stores.runs.get(run.id)
    assert done.state is RunState.DONE and done.artifact == alone.artifact
    assert [s.end.step for s in world.segments(run)] == [6, 12]


def test_only_the_newest_checkpoint_is_kept_for_others(world, files, tmp_path):
    world.corpus = world.add_corpus(Label.SHARED)
    run = world.run(segment_steps=4)
    sharing(world, files).carry(JournalSteps([]), run.id)
    for number, expected in ((1, False), (2, False), (3, True)):
        files.bring(f"runs/{run.id}/{number:04d}/out", tmp_path / "other" / str(number))
        assert (tmp_path / "other" / str(number) / "checkpoint").exists() is expected


def test_nothing_of_a_secret_run_is_left_in_the_store(world, files, tmp_path):
    run = world.run(segment_steps=6)
    assert run.label is Label.SECRET
    sharing(world, files).carry(JournalSteps([]), run.id)
    assert not files.bring(f"runs/{run.id}/0001/in", tmp_path / "other")
    assert not files.bring(f"runs/{run.id}/0001/out", tmp_path / "other")


def test_a_node_that_is_cut_off_lets_go_of_a_segment_that_another_has_taken(world):
    run = world.run(steps=100_000)

    def take() -> None:
        while not any(segment.state is SegmentState.RUNNING for segment in world.segments(run)):
            time.sleep(0.02)
        world.stores.runs.update(run.id, node="other")

    threading.Thread(target=take, daemon=True).start()
    with pytest.raises(Stopping):
        world.carry(run, lease=timedelta(minutes=30))
    [segment] = world.segments(run)
    assert segment.state in (SegmentState.PENDING, SegmentState.RUNNING)
    assert world.stores.runs.get(run.id).node == "other"


def test_taking_over_is_refused_while_work_sent_elsewhere_cannot_be_seen_from_here(world):
    class Elsewhere:
        """A place that this home has sent nothing to, and whose jobs end without a lease."""

        def __init__(self, local):
            self.poll = local.poll

    engine = AdoptingEngine()
    local = world.backends("local")["local"]
    runs = Runs(
        store=world.stores.runs,
        engine=engine,
        backends=lambda strategy: {"local": Elsewhere(local)},
        clock=world.coordinator().means.clock,
        node="here",
    )
    run = world.run()
    world.coordinator().plan_next(run.id, 0)
    [segment] = world.segments(run)
    started = world.coordinator().means.clock.now()
    taken = {"handle": "gone", "started_at": started, "planned_for": timedelta(hours=1)}
    world.stores.runs.put_segment(replace(segment, **taken))
    with pytest.raises(Refused, match="still train, and cost"):
        runs.take_over(run.id)
    assert engine.adopted == []
    world.stores.runs.put_segment(replace(segment, **taken | {"started_at": started - timedelta(hours=2)}))
    assert runs.take_over(run.id).node == "here"
    assert engine.adopted == [run.id]


def test_a_blob_of_another_home_is_fetched_checked_and_mended(files, tmp_path):
    ann, bob = (SharedBlobs(FileBlobs(tmp_path / name), files) for name in ("ann", "bob"))
    digest = ann.put(io.BytesIO(b"a corpus"))
    place = bob.path(digest)
    assert place.read_bytes() == b"a corpus" and place.is_relative_to(tmp_path / "bob")
    place.chmod(0o600)
    place.write_bytes(b"a corpse")
    assert bob.path(digest).read_bytes() == b"a corpus"
    secret = FileBlobs(tmp_path / "ann").put(io.BytesIO(b"a secret corpus"))
    assert ann.path(secret).read_bytes() == b"a secret corpus"
    with pytest.raises(NotFound, match=r"neither in .* nor in the store"):
        bob.open(secret)


class AdoptingEngine:
    """A durable engine of which only adopting is asked here."""

    def __init__(self):
        self.adopted = []

    def adopt(self, key: str) -> None:
        self.adopted.append(key)
