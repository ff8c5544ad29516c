"""Whole runs by way of workers: carried by the coordinator, let in by the command line."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import request_kills

from elias.adapters.backends.worker import WorkerBackend
from elias.adapters.backends.worker.register import Register
from elias.adapters.clock import SystemClock
from elias.cli.shell import run_command
from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.label import Label
from elias.domain.run import Bounds, RunState
from elias.services.runs import Wanted, new_run
from elias.testing.bundles import CORPUS, small_corpus
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.waiting import wait_until
from elias.wiring.backends import Backends
from elias.wiring.listening import listening
from elias.wiring.plugins import plugin_names
from elias.wiring.train import open_training
from elias_trainer.contract import FailureKind, Recipe
from tests.adapters.worker.by_hand import Hand
from tests.adapters.worker.conftest import SETTINGS, Place

pytestmark = pytest.mark.skipif(
    "worker" not in plugin_names("elias.backends"),
    reason="installed before there were workers: pip install --no-deps --no-build-isolation -e .",
)
STEPS = 40


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`elias worker …`, as it is typed: exit code, stdout, stderr."""
    monkeypatch.setenv("ELIAS_HOME", str(config.home))

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command("elias", "worker", "worker", list(words))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def config(place: Place) -> Config:
    home = place.folder / "home"
    home.mkdir()
    table = "".join(f'{name} = "{value}"\n' for name, value in SETTINGS.items())
    (home / "config.toml").write_text(f"[backends.worker]\nport = {place.port}\n{table}")
    backends = {"worker": {**SETTINGS, "port": place.port}}
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.3))
    return Config(home=home, backends=backends, training=training)


@pytest.mark.slow
def test_a_run_goes_on_with_another_worker_from_the_checkpoint_of_one_that_was_killed(
    place: Place, config: Config
) -> None:
    with open_training(config, request_kills.parts_of(config.home)) as training:
        corpus = small_corpus(training.coordinator.means.blobs, Label.PUBLIC, SystemClock().now())
        training.stores.corpora.add(corpus)
        request_kills.quick(training).launch()
        backend = training.places("worker")["worker"].place
        token, _ = backend.register.new_token(timedelta(hours=1))
        listening(config, training)()
        first = place.start(place.url, token)
        wait_until(backend.register.known, place.said)
        hold = place.folder / "hold"
        hold.touch()
        base = fake_base(step_s=0.05, held=(hold, STEPS // 2))
        asked = Wanted(strategy="worker", base=base, recipe=Recipe(max_steps=STEPS), bounds=Bounds())
        run = new_run(asked, corpus, SystemClock())
        training.runs.begin(run)
        wait_until(lambda: "is home" in place.said(), place.said)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        hold.unlink()
        patient = backend.settings
        backend.settings = replace(patient, patience=timedelta(seconds=1))
        wait_until(lambda: training.stores.runs.segments(run.id)[0].state.is_final, place.said)
        backend.settings = patient
        token, _ = backend.register.new_token(timedelta(hours=1))
        place.start(place.url, token, name="other")
        wait_until(lambda: training.stores.runs.get(run.id).state.is_final, lambda: place.said("other"))
        seen, segments = training.stores.runs.get(run.id), training.stores.runs.segments(run.id)
        assert seen.state is RunState.DONE and seen.artifact == expected_adapter(CORPUS, STEPS)
        lost, last = segments[0].failure, training.stores.runs.events(segments[-1].key)
        assert lost is not None and lost.kind is FailureKind.INFRASTRUCTURE and "silent" in lost.message
        steps = [int(event["step"]) for event in last if event["kind"] == "step"]
        assert steps[0] > 1 and steps[-1] == STEPS


def test_the_command_line_lets_in_lists_and_forgets(place: Place, config: Config, cli: Cli) -> None:
    assert "elias worker token" in cli("list")[1]
    code, answer, aside = cli("token", "--url", "https://node.example/")
    joining, fetching = answer.splitlines()
    assert code == 0 and joining.startswith("elias worker join https://node.example ") and "tunnel" not in aside
    assert "https://node.example/worker.pyz" in fetching and joining.split()[-1] in fetching
    assert "tunnel" in cli("token")[2]
    backend = Backends(config).make("worker")
    assert isinstance(backend, WorkerBackend)
    place.made.append(backend)
    hand = Hand(place, token=joining.split()[-1], opens=True)
    (row,) = json.loads(cli("list", "--json")[1])
    assert row["worker"] == hand.worker and row["accelerator_count"] >= 1 and row["segment"] is None
    assert json.loads(cli("forget", hand.worker, "--json")[1]) == {"worker": hand.worker, "gone": False}
    code, _, why = cli("forget", "w-0000000000")
    assert code == 3 and "elias worker list" in why


def test_the_command_line_writes_a_notebook_that_holds_a_new_token(place: Place, config: Config, cli: Cli) -> None:
    path = place.folder / "colab.ipynb"
    assert cli("notebook", "--url", "https://node.example", "--out", str(path))[0] == 0
    assert path.stat().st_mode & 0o077 == 0
    (cell,) = json.loads(path.read_text())["cells"]
    compile("".join(cell["source"]), "cell", "exec")
    assert '"https://node.example"' in "".join(cell["source"])
    assert Register(config.home / "backends" / "worker", SystemClock()).has_open_token()
