"""kill -9 of whatever carries a run, at random moments: nothing is lost or done twice, nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from elias.adapters.backends.local import CANCEL_GRACE_S
from elias.adapters.backends.process import ProcessIdentity
from elias.services.train import WORKFLOW
from elias.testing.postgres import fresh_database, postgres_server
from elias.testing.waiting import PATIENCE_S, wait_until

CHAOS = Path(__file__).parents[2] / "bench" / "chaos.py"


def chaos(*words: str) -> dict[str, object]:
    ran = subprocess.run([sys.executable, CHAOS, *words], capture_output=True, text=True, check=False)
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield fresh_database(server)


def test_six_random_kills_lose_nothing_and_repeat_nothing_on_sqlite():
    report = chaos("--only", "train", "--kills", "6", "--seed", "11")
    assert report["wrong"] == [] and report["kills"] == 6


def test_random_kills_lose_nothing_and_repeat_nothing_on_postgresql(postgres):
    report = chaos("--only", "train", "--kills", "3", "--seed", "12", "--store", postgres)
    assert report["wrong"] == [] and report["store"] == "postgresql"


@pytest.mark.slow
def test_kills_in_every_room_of_the_walk_lose_nothing_and_repeat_nothing():
    report = chaos("--only", "walk", "--kills", "6", "--seed", "14")
    assert report["wrong"] == [] and report["kills"] == 6


def test_two_nodes_share_the_queue_and_one_that_is_killed_goes_on_with_what_it_began(postgres, tmp_path, chaos_module):
    nodes = {name: chaos_module.config_of(tmp_path / name, postgres, name) for name in ("ann", "bob")}
    setting = chaos_module.Setting(steps=40, segment_steps=None, step_s=0.05)
    with ExitStack() as open_:
        drawing = [(c, open_.enter_context(chaos_module.opened(c, real=False))) for c in nodes.values()]
        drawn = [chaos_module.draw_run(config, training, setting) for config, training in drawing for _ in range(2)]
        for run in drawn:
            # The nodes stay while there are any; none can be taken before both are up.
            drawing[0][1].stores.runs.add(run)
    begun = [run.id for run in drawn]

    def start(name: str) -> subprocess.Popen[bytes]:
        words = ["--carry", str(tmp_path / name), "--store", postgres, "--node", name, "--workers", "2"]
        return subprocess.Popen([sys.executable, str(CHAOS), *words])

    def is_up(name: str) -> bool:
        lock = tmp_path / name / "engine.lock"
        return lock.exists() and lock.read_text() == str(children[name].pid)

    with chaos_module.opened(nodes["ann"], real=False) as training:
        stores, children = training.stores, {name: start(name) for name in nodes}
        try:
            wait_until(lambda: all(is_up(name) for name in nodes))
            for run in begun:
                training.engine.start(WORKFLOW, run)
            wait_until(lambda: {stores.runs.get(run).node for run in begun} >= {"ann", "bob"})
            children["ann"].kill()
            children["ann"].wait()
            children["ann"] = start("ann")
            for child in children.values():
                assert child.wait(PATIENCE_S) == 0
            runs = [stores.runs.get(run) for run in begun]
            events = {r.id: [e for s in stores.runs.segments(r.id) for e in stores.runs.events(s.key)] for r in runs}
        finally:
            for child in children.values():
                child.kill()
                child.wait()
    assert {str(run.state) for run in runs} == {"done"}
    assert len({run.artifact for run in runs}) == 1, "the same training gave different bytes"
    for run in runs:
        assert [e["kind"] for e in events[run.id]].count("started") == 1, f"{run.id} was begun twice"
    finished = [line for name in nodes for line in lines_of(tmp_path / name / "finished.txt")]
    assert sorted(finished) == sorted(begun)


def test_cancel_reaches_the_trainer_of_a_killed_coordinator_within_five_seconds(tmp_path, chaos_module):
    config = chaos_module.config_of(tmp_path)
    run = chaos_module.begin_run(config, chaos_module.Setting(steps=100_000, segment_steps=None))
    child = subprocess.Popen([sys.executable, str(CHAOS), "--carry", str(tmp_path)])
    checkpoints = "backends/local/segments/*/out/checkpoint/step-*/manifest.json"
    wait_until(lambda: list(tmp_path.glob(checkpoints)))
    [who] = tmp_path.glob("backends/local/segments/*/who.json")
    trainer = ProcessIdentity(**{name: json.loads(who.read_bytes())[name] for name in ("pid", "born")})
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with chaos_module.opened(config, real=False) as training:
        assert trainer.is_alive()
        training.runs.cancel(run)
        assert not trainer.is_alive(), "it was told to end, and would have been killed after the time of grace"
        assert CANCEL_GRACE_S < 5
        wait_until(lambda: not chaos_module.under(tmp_path))
        training.launch()
        wait_until(lambda: training.stores.runs.get(run).state == "cancelled")
        [segment] = training.stores.runs.segments(run)
    assert segment.state == "cancelled"
    assert (tmp_path / "runs" / run / segment.end.path / "manifest.json").exists()


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def chaos_module(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.syspath_prepend(CHAOS.parent)

    spec = importlib.util.spec_from_file_location("elias_bench_chaos", CHAOS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):  # it ended just now
                process.kill()
