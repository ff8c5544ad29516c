"""Whole runs on the emulated Kaggle, through the real coordinator, engine and stores."""

import io
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, RunState
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS
from elias.testing.fake_trainer import fake_base
from elias.testing.kaggle_emulator import KaggleEmulator
from elias.wiring.stores import open_stores
from elias.wiring.train import open_training
from elias_trainer.contract import Recipe, canonical_json, digest_bytes

HERE = Path(__file__).parent
STEPS = 40
_spec = util.spec_from_file_location("kaggle_node_process", HERE / "node_process.py")
assert _spec and _spec.loader
node_process = util.module_from_spec(_spec)
_spec.loader.exec_module(node_process)


def expected_adapter(steps: int = STEPS) -> str:
    """The adapter of a run that nothing ever interrupted: each step's digest follows from the one before."""
    from elias.testing.fake_trainer.program import _safetensors

    corpus = digest_bytes(CORPUS)
    digests: list[str] = []
    for step in range(1, steps + 1):
        before = digests[-1] if digests else corpus.hex
        digests.append(digest_bytes(f"{before} {step} 0 {corpus}".encode()).hex)
    return digest_bytes(_safetensors("base_model.fake", b"".join(bytes.fromhex(digest) for digest in digests)))


def wanted(**bounds: Any) -> Wanted:
    return Wanted(
        strategy="kaggle",
        base=fake_base(step_s=0.01),
        recipe=Recipe(max_steps=STEPS),
        bounds=replace(Bounds(), **bounds),
    )


def corpus_in(home: Path, label: Label = Label.PUBLIC) -> Corpus:
    train = FolderBlobs(home / "blobs").put(io.BytesIO(CORPUS))
    return Corpus(
        digest=digest_bytes(label.encode()),
        label=label,
        train=train,
        heldout=train,
        train_examples=1,
        heldout_examples=0,
        preference_pairs=0,
        sessions=1,
        by_source={},
        built_at=SystemClock().now(),
    )


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "template.py"
    path.write_text(as_script(template_text()))
    return str(path)


def steps_of(training_or_stores: Any, run: Run) -> list[int]:
    runs = training_or_stores.runs
    events = [event for segment in runs.segments(run.id) for event in runs.events(segment.key)]
    return [int(event["step"]) for event in events if event["kind"] == "step"]


def test_five_segments_over_two_weeks_give_the_bytes_of_an_uninterrupted_run(
    emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    disk, home = emulated.disk, tmp_path / "node"
    disk.configure(gpu_seconds_a_week=600.0, gpu_scale=100.0)  # a session of some seconds is worth some minutes
    clock = node_process.EmulatedClock(disk)
    waits: set[str] = set()
    config = node_process.config_of(home, emulated.url, script)
    with open_training(config, node_process.parts_of(home, clock)) as training:
        corpus = corpus_in(home)
        training.stores.corpora.add(corpus)
        run = new_run(wanted(segment_steps=8), corpus, clock)
        training.launch()
        training.runs.begin(run)
        end = time.monotonic() + 100
        while not (seen := training.stores.runs.get(run.id)).state.is_final:
            assert time.monotonic() < end and seen.state is not RunState.FAILED, seen
            if seen.state is RunState.WAITING and "quota is used up" in (seen.reason or ""):
                refresh = disk.next_refresh()
                waits.add(f"{refresh:%Y-%m-%d}")
                disk.advance(refresh - disk.now() + timedelta(minutes=1))
            time.sleep(0.05)
        assert seen.state is RunState.DONE and seen.artifact == expected_adapter()
        segments = training.stores.runs.segments(run.id)
        assert [segment.end.step for segment in segments if segment.end] == [8, 16, 24, 32, 40]
        assert steps_of(training.stores, run) == list(range(1, STEPS + 1)), "a step was lost or done twice"
    assert len(waits) >= 2, "the run never had to wait for a week's hours"
    assert not list(disk.root.glob("kernels/ada/*")), "a finished run leaves nothing on Kaggle"


def test_a_run_that_waits_for_its_quota_says_until_when(
    emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    emulated.disk.configure(gpu_seconds_a_week=60.0)
    home = tmp_path / "node"
    config = node_process.config_of(home, emulated.url, script)
    with open_training(config, node_process.parts_of(home)) as training:
        corpus = corpus_in(home)
        training.stores.corpora.add(corpus)
        run = new_run(wanted(), corpus, SystemClock())
        training.launch()
        training.runs.begin(run)
        end = time.monotonic() + 20
        while (seen := training.stores.runs.get(run.id)).state is not RunState.WAITING:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert f"{emulated.disk.next_refresh():%Y-%m-%d}" in (seen.reason or "")


@pytest.mark.slow
def test_private_data_is_planned_for_kaggle_and_sealed_with_the_nodes_own_key(
    emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    from elias.wiring.attest import make_node

    home = tmp_path / "node"
    config = node_process.config_of(home, emulated.url, script)
    make_node(config)
    with open_training(config, node_process.parts_of(home)) as training:
        corpus = corpus_in(home, Label.PRIVATE)
        training.stores.corpora.add(corpus)
        run = new_run(wanted(), corpus, SystemClock())
        training.launch()
        training.runs.begin(run)
        end = time.monotonic() + 60
        while not (seen := training.stores.runs.get(run.id)).state.is_final:
            assert time.monotonic() < end and seen.state is not RunState.FAILED, seen
            time.sleep(0.05)
    assert seen.artifact == expected_adapter()
    readable = [p for p in emulated.disk.root.rglob("*") if p.is_file() and CORPUS[2:40] in p.read_bytes()]
    assert readable == []


def kill_at(number: int, emulated: KaggleEmulator, home: Path, script: str) -> None:
    """A run whose node is killed after every `number`-th request ends as if nothing had happened."""
    with open_stores(Config(home=home)) as stores:
        corpus = corpus_in(home)
        stores.corpora.add(corpus)
        run = new_run(wanted(segment_steps=25), corpus, SystemClock())
    config = node_process.config_of(home, emulated.url, script)
    with open_training(config, node_process.parts_of(home)) as training:
        training.runs.begin(run)
    command = [sys.executable, str(HERE / "node_process.py"), str(home), emulated.url, script, run.id]
    first = subprocess.run([*command, str(number)], check=False, timeout=60)
    assert first.returncode in (-9, 0)
    if first.returncode:
        assert subprocess.run(command, check=False, timeout=90).returncode == 0
    with open_stores(Config(home=home)) as stores:
        assert stores.runs.get(run.id).artifact == expected_adapter(), f"killed after request {number}"
        assert steps_of(stores, run) == list(range(1, STEPS + 1)), f"killed after request {number}"
        assert len(stores.runs.segments(run.id)) == 2, f"killed after request {number}"
    assert len(emulated.disk.requests("SaveKernel")) == 2, f"killed after request {number}"


@pytest.mark.parametrize("number", [9])
def test_a_node_killed_between_two_calls_goes_on_and_pushes_nothing_twice(
    number: int, emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    kill_at(number, emulated, tmp_path / "node", script)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 4, 7, 12, 18, 30])
def test_a_node_killed_after_any_request_goes_on(
    number: int, emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    kill_at(number, emulated, tmp_path / "node", script)


@pytest.mark.slow
def test_the_real_trainer_gives_the_same_bytes_in_two_kaggle_sessions_as_in_one_piece_here(
    emulated: KaggleEmulator, account: None, tmp_path: Path, script: str
) -> None:
    from elias.wiring.train import write_trainer_archive
    from elias_trainer.contract import BaseModel

    home = tmp_path / "node"
    lines = [
        {
            "id": f"example-{number}",
            "source": "code",
            "stage": None,
            "messages": [
                {"role": "user", "content": f"What is {number} and one?"},
                {"role": "assistant", "content": f"It is {number + 1}, and {number + 2} comes after it."},
            ],
            "weight_ppm": 1_000_000,
        }
        for number in range(8)
    ]
    config = node_process.config_of(home, emulated.url, script)
    parts = replace(node_process.parts_of(home), archive=write_trainer_archive)
    with open_training(config, parts) as training:
        train = parts.blobs.put(io.BytesIO(b"".join(canonical_json(line) + b"\n" for line in lines)))
        corpus = replace(corpus_in(home), train=train, heldout=train, train_examples=8)
        training.stores.corpora.add(corpus)
        training.launch()
        recipe = Recipe(max_steps=4, batch_size=2, sequence_length=256, rank=4)
        artifacts = []
        for strategy, bounds in (("local", Bounds()), ("kaggle", Bounds(segment_steps=2))):
            asked = Wanted(strategy=strategy, base=BaseModel(reference="tiny"), recipe=recipe, bounds=bounds)
            run = new_run(asked, corpus, SystemClock())
            training.runs.begin(run)
            end = time.monotonic() + 120
            while not (seen := training.stores.runs.get(run.id)).state.is_final:
                assert time.monotonic() < end and seen.state is not RunState.FAILED, seen
                time.sleep(0.1)
            artifacts.append(seen.artifact)
        assert len(training.stores.runs.segments(run.id)) == 2
    assert artifacts[0] == artifacts[1] is not None
