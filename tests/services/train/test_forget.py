"""Checkpoints of runs that are over can be removed; nothing that could go on is touched unless it is named."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.stores.database import open_database
from elias.adapters.stores.files import SqlFiles
from elias.domain.label import Label
from elias.domain.run import RunState, Wish
from elias.errors import Refused
from elias.services.forget import Forgetting
from elias.services.run_share import RunShare
from elias.testing.fake_trainer import fake_base
from elias.testing.waiting import wait_until

NOW = timedelta(0)


def forgetting(world, share=None):
    means = world.coordinator().means
    return Forgetting(
        runs=means.runs, backends=means.backends, folders=means.folders, share=share or means.share, clock=means.clock
    )


def stopped(world, wish):
    """As soon as it has a checkpoint."""
    run = world.run(steps=100_000, base=fake_base(step_s=0.005))

    def ask() -> None:
        wait_until(lambda: checkpoints(world, run))
        world.stores.runs.update(run.id, wish=wish)

    asking = threading.Thread(target=ask)
    asking.start()
    run = world.carry(run, lease=timedelta(minutes=30))
    asking.join()
    return run


def checkpoints(world, run):
    """While its trainer writes and removes some, too: `rglob` raises where a folder is gone before it is read."""
    found = [(Path(folder), names) for folder, _, names in os.walk(world.home) if run.id in folder]
    return [folder / name for folder, names in found if folder.name.startswith("step-") for name in names]


def test_prune_names_cancelled_runs_alone_and_only_old_ones(world):
    cancelled, paused = stopped(world, Wish.CANCEL), stopped(world, Wish.PAUSE)
    assert (cancelled.state, paused.state) == (RunState.CANCELLED, RunState.PAUSED)
    found = {left.run: left for left in forgetting(world).leftovers(NOW)}
    assert not found[cancelled.id].could_resume and found[paused.id].could_resume
    [segment] = world.segments(cancelled)
    kept = world.home / "runs" / cancelled.id / segment.end.path
    assert found[cancelled.id].bytes >= sum(path.stat().st_size for path in kept.iterdir()) > 0
    assert forgetting(world).leftovers(timedelta(hours=1)) == ()


def test_what_is_forgotten_gives_its_bytes_back_and_keeps_its_story(world):
    run = stopped(world, Wish.CANCEL)
    before = forgetting(world).leftover(run)
    assert forgetting(world).forget(run.id) == before
    assert checkpoints(world, run) == []
    assert forgetting(world).leftover(run).bytes == 0 and forgetting(world).leftovers(NOW) == ()
    [segment] = world.segments(run)
    assert segment.end is not None and world.stores.runs.events(segment.key)
    assert (world.home / "runs" / run.id / "segments" / "0001" / "in" / "job.json").exists()
    forgetting(world).forget(run.id)


def test_a_paused_run_that_is_named_is_cancelled_before_its_checkpoint_goes(world):
    run = stopped(world, Wish.PAUSE)
    forgetting(world).forget(run.id)
    after = world.stores.runs.get(run.id)
    assert after.state is RunState.CANCELLED and "checkpoints were removed" in after.reason
    assert checkpoints(world, run) == []


def test_a_run_under_way_is_refused_and_keeps_everything(world):
    run = world.run()
    world.coordinator().plan_next(run.id, 0)
    for state in (RunState.RUNNING, RunState.FAILED):
        world.stores.runs.update(run.id, state=state)
        with pytest.raises(Refused, match="under way"):
            forgetting(world).forget(run.id)
    assert world.stores.runs.get(run.id).state is RunState.FAILED


def test_what_other_nodes_could_have_fetched_goes_too(world, tmp_path):
    database = open_database(None, tmp_path / "shared.db")
    files = SqlFiles(database)
    world.corpus = world.add_corpus(Label.SHARED)
    run = stopped(world, Wish.CANCEL)
    share = RunShare(files)
    folder = world.coordinator()._folder(run)
    share.keep_outputs(run, folder, world.segments(run))
    forgetting(world, share).forget(run.id)
    files.bring(f"runs/{run.id}/0001/out", tmp_path / "other")
    assert (tmp_path / "other" / "events.jsonl").exists() and not (tmp_path / "other" / "checkpoint").exists()
    database.close()
