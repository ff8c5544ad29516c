"""Whole runs on the emulated Kaggle, through the real coordinator, engine and stores."""

import io
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import kaggle_kills
import pytest
import request_kills

from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.run import Bounds, RunState
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, questions, small_corpus
from elias.testing.fake_trainer import expected_adapter
from elias.testing.kaggle_emulator import Beside
from elias.testing.waiting import PATIENCE_S, wait_for_end, wait_until
from elias.wiring.train import open_training
from elias_trainer.contract import Recipe

STEPS = 40


def expected(steps: int = STEPS) -> str:
    return expected_adapter(CORPUS, steps)


def corpus_in(home: Path, label: Label = Label.PUBLIC) -> Corpus:
    return small_corpus(FolderBlobs(home / "blobs"), label, SystemClock().now())


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "template.py"
    path.write_text(as_script(template_text()))
    return str(path)


def test_five_segments_over_two_weeks_give_the_bytes_of_an_uninterrupted_run(
    emulated: Beside, account: None, tmp_path: Path, script: str
) -> None:
    disk, home = emulated.disk, tmp_path / "node"
    disk.configure(gpu_seconds_a_week=600.0, gpu_least_s=350.0)  # two sessions are worth a week
    clock = kaggle_kills.EmulatedClock(disk)
    waits: set[str] = set()
    config = kaggle_kills.config_of(home, emulated.url, script)
    with open_training(config, request_kills.parts_of(home, clock)) as training:
        corpus = corpus_in(home)
        training.stores.corpora.add(corpus)
        run = new_run(kaggle_kills.wanted(STEPS, segment_steps=8), corpus, clock)
        request_kills.quick(training).launch()
        training.runs.begin(run)
        end = time.monotonic() + PATIENCE_S
        while not (seen := training.stores.runs.get(run.id)).state.is_final:
            assert time.monotonic() < end and seen.state is not RunState.FAILED, seen
            refresh = disk.next_refresh()
            days = (f"{refresh:%Y-%m-%d}", f"{refresh.day} {refresh:%b}")
            if seen.state is RunState.WAITING and any(day in (seen.reason or "") for day in days):
                waits.add(f"{refresh:%Y-%m-%d}")
                disk.advance(refresh - disk.now() + timedelta(minutes=1))
            time.sleep(0.05)
        assert seen.state is RunState.DONE and seen.artifact == expected()
        segments = training.stores.runs.segments(run.id)
        assert [segment.end.step for segment in segments if segment.end] == [8, 16, 24, 32, 40]
        assert request_kills.steps_of(training.stores, run) == list(range(1, STEPS + 1)), (
            "a step was lost or done twice"
        )
    assert len(waits) >= 2, "the run never had to wait for a week's hours"
    assert not list(disk.root.glob("kernels/ada/*")), "a finished run leaves nothing on Kaggle"


def test_a_run_that_waits_for_its_quota_says_until_when(
    emulated: Beside, account: None, tmp_path: Path, script: str
) -> None:
    emulated.disk.configure(gpu_seconds_a_week=60.0)
    home, refresh = tmp_path / "node", emulated.disk.next_refresh()
    config = kaggle_kills.config_of(home, emulated.url, script)
    with open_training(config, request_kills.parts_of(home)) as training:
        corpus = corpus_in(home)
        training.stores.corpora.add(corpus)
        run = new_run(kaggle_kills.wanted(STEPS), corpus, SystemClock())
        request_kills.quick(training).launch()
        training.runs.begin(run)
        wait_until(lambda: training.stores.runs.get(run.id).state is RunState.WAITING)
        seen = training.stores.runs.get(run.id)
    refreshes = {refresh, emulated.disk.next_refresh()}  # a week may have ended just now
    assert any(f"{moment:%Y-%m-%d}" in (seen.reason or "") for moment in refreshes)


def test_a_cancelled_run_leaves_nothing_on_kaggle_and_keeps_its_checkpoint(
    emulated: Beside, account: None, tmp_path: Path, script: str
) -> None:
    home = tmp_path / "node"
    config = kaggle_kills.config_of(home, emulated.url, script, session_limit="90s", margin="60s")
    with open_training(config, request_kills.parts_of(home)) as training:
        corpus = corpus_in(home)
        training.stores.corpora.add(corpus)
        run = new_run(kaggle_kills.wanted(100_000), corpus, SystemClock())
        request_kills.quick(training).launch()
        training.runs.begin(run)
        wait_until(lambda: request_kills.steps_of(training.stores, run))
        training.runs.cancel(run.id)
        seen = wait_for_end(training.stores.runs, run.id)
        [segment] = training.stores.runs.segments(run.id)
        assert seen.state is RunState.CANCELLED and segment.end and segment.end.step > 0
        assert (home / "runs" / run.id / segment.end.path).is_dir()
        wait_until(lambda: not list(emulated.disk.root.glob("*/ada/*")), lambda: "it leaves something on Kaggle")


@pytest.mark.slow
def test_private_data_is_planned_for_kaggle_and_sealed_with_the_nodes_own_key(
    emulated: Beside, account: None, tmp_path: Path, script: str
) -> None:
    from elias.wiring.attest import make_node

    home = tmp_path / "node"
    config = kaggle_kills.config_of(home, emulated.url, script)
    make_node(config)
    with open_training(config, request_kills.parts_of(home)) as training:
        corpus = corpus_in(home, Label.PRIVATE)
        training.stores.corpora.add(corpus)
        run = new_run(kaggle_kills.wanted(STEPS), corpus, SystemClock())
        request_kills.quick(training).launch()
        training.runs.begin(run)
        assert wait_for_end(training.stores.runs, run.id).artifact == expected()
    readable = [p for p in emulated.disk.root.rglob("*") if p.is_file() and CORPUS[2:40] in p.read_bytes()]
    assert readable == []


@pytest.mark.slow
def test_the_real_trainer_gives_the_same_bytes_in_two_kaggle_sessions_as_in_one_piece_here(
    emulated: Beside, account: None, tmp_path: Path, script: str
) -> None:
    from elias.adapters.backends.trainer_archive import write_trainer_archive
    from elias_trainer.contract import BaseModel

    home = tmp_path / "node"
    config = kaggle_kills.config_of(home, emulated.url, script)
    parts = replace(request_kills.parts_of(home), archive=write_trainer_archive)
    with open_training(config, parts) as training:
        train = parts.blobs.put(io.BytesIO(questions(8)))
        corpus = replace(corpus_in(home), train=train, heldout=train, train_examples=8)
        training.stores.corpora.add(corpus)
        request_kills.quick(training).launch()
        recipe = Recipe(max_steps=4, batch_size=2, sequence_length=256, rank=4)
        artifacts = []
        for strategy, bounds in (("local", Bounds()), ("kaggle", Bounds(segment_steps=2))):
            asked = Wanted(strategy=strategy, base=BaseModel(reference="tiny"), recipe=recipe, bounds=bounds)
            run = new_run(asked, corpus, SystemClock())
            training.runs.begin(run)
            artifacts.append(wait_for_end(training.stores.runs, run.id).artifact)
        assert len(training.stores.runs.segments(run.id)) == 2
    assert artifacts[0] == artifacts[1] is not None
