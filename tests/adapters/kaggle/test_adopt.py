"""A segment started by hand with Kaggle's own command line, never submitted by the node, comes home into its run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import kaggle_kills
import pytest
import request_kills

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.by_hand import Kit, Owner, lay_out
from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.domain.label import Label
from elias.domain.run import Bounds, Checkpoint, Run, RunState, Segment, SegmentState
from elias.errors import (
    BackendError,
    DigestMismatch,
    EliasError,
    InputError,
    LabelForbids,
    NotFound,
    Refused,
    VerificationError,
)
from elias.services.adopt import Adoption
from elias.services.by_hand import ByHand
from elias.services.runs import Wanted, new_run
from elias.services.verify import verify_artifact
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, small_corpus
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.kaggle_emulator import Fault, FaultKind, KaggleEmulator
from elias.testing.waiting import PATIENCE_S, wait_for_end, wait_until
from elias.wiring.attest import make_node, node_signer
from elias.wiring.backends import backend_context
from elias.wiring.by_hand import download
from elias.wiring.train import Training, open_training
from elias_trainer.contract import BaseModel, Recipe, digest_bytes, digest_file
from tests.adapters.kaggle.official_cli import type_kaggle

STEPS = 40


@dataclass
class Person:
    """Somebody with a node, an account and Kaggle's own command line."""

    training: Training
    emulated: KaggleEmulator
    config: Config

    @property
    def home(self) -> Path:
        return self.config.home

    @property
    def backend(self) -> Any:
        return self.training.coordinator.means.backends("kaggle")["kaggle"]

    def run(self, label: Label = Label.PUBLIC, steps: int = STEPS, base: BaseModel | None = None, **bounds: Any) -> Run:
        """One that stands, of which nothing was ever sent."""
        corpus = small_corpus(FolderBlobs(self.home / "blobs"), label, SystemClock().now())
        self.training.stores.corpora.add(corpus)
        wanted = kaggle_kills.wanted(steps, **bounds)
        run = new_run(replace(wanted, base=base or wanted.base), corpus, SystemClock())
        self.training.stores.runs.add(run)
        return self.training.stores.runs.update(run.id, state=RunState.PAUSED)

    def kit(self, run: Run, span: timedelta | None = None) -> Kit:
        hand = ByHand(self.training.coordinator.means, self.training.coordinator.pace)
        bundle = hand.lay_out(run.id, "kaggle", span)
        context = backend_context(self.config, "kaggle")
        owner = Owner(account=self.backend.owner, node=context.node, key=context.node_key)
        folder = self.home / "kits" / bundle.job.segment
        return lay_out(bundle, folder, owner, self.backend.settings)

    def follow(self, kit: Kit, until: str = "COMPLETE|ERROR|CANCEL_ACKNOWLEDGED") -> None:
        """Type what the kit says, each until it has come to its end."""
        for command in kit.commands:
            word = "ready" if "datasets status" in command else until if "kernels status" in command else ""
            self.type_until(word, command)

    def type_until(self, word: str, command: str) -> None:
        wait_until(
            lambda: re.search(word, type_kaggle(command, self.emulated.url, self.home)) is not None, lambda: command
        )

    def adopt(self, kit: Kit) -> Run:
        return Adoption(self.training.coordinator).adopt("kaggle", self.backend, kit.address)

    def output(self, kit: Kit) -> Path:
        slug = kit.address.rpartition("/")[2]
        return self.emulated.disk.kernel("ada", slug) / "versions" / "1" / "kaggle" / "working"


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[KaggleEmulator]:
    """With a server of its own: Kaggle's command line reaches no other."""
    with KaggleEmulator(tmp_path / "emulated") as emulator:
        yield emulator


@pytest.fixture
def person(emulated: KaggleEmulator, account: None, tmp_path: Path) -> Iterator[Person]:
    template = tmp_path / "template.py"
    template.write_text(as_script(template_text()))
    home = tmp_path / "node"
    config = kaggle_kills.config_of(home, emulated.url, str(template))
    make_node(config)
    with open_training(config, request_kills.parts_of(home)) as training:
        yield Person(training, emulated, config)


def test_a_segment_that_ended_with_a_checkpoint_goes_on_and_one_with_the_adapter_ends_its_run(person: Person) -> None:
    run = person.run(label=Label.PRIVATE, segment_steps=STEPS // 2)
    first = person.kit(run)
    person.follow(first)
    assert [path for path in person.emulated.disk.root.glob("datasets/ada/*") if "key" in path.name] == []
    adopted = person.adopt(first)
    assert (adopted.state, adopted.artifact) == (RunState.PAUSED, None)
    assert f"adopted step {STEPS // 2}" in (adopted.reason or "") and "resume" in (adopted.reason or "")
    assert person.adopt(first) == adopted, "the same work is not taken twice"
    second = person.kit(run)
    person.follow(second)
    downloaded = download(person.config, second.address) / "adapter_model.safetensors"
    assert digest_file(downloaded) == expected_adapter(CORPUS, STEPS)
    done = person.adopt(second)
    assert (done.state, done.artifact) == (RunState.DONE, expected_adapter(CORPUS, STEPS))
    segments = person.training.stores.runs.segments(run.id)
    assert [(s.number, s.state, s.start and s.start.step) for s in segments] == [
        (1, SegmentState.PAUSED, None),
        (2, SegmentState.DONE, STEPS // 2),
    ]
    assert request_kills.steps_of(person.training.stores, run) == list(range(1, STEPS + 1))
    with pytest.raises(Refused, match="is done"):
        person.adopt(second)


@pytest.mark.slow
def test_the_node_goes_on_by_itself_from_what_was_adopted(person: Person) -> None:
    run = person.run(segment_steps=STEPS - 5)
    kit = person.kit(run)
    person.follow(kit)
    person.adopt(kit)
    person.training.launch()
    person.training.runs.resume(run.id)
    assert wait_for_end(person.training.stores.runs, run.id).artifact == expected_adapter(CORPUS, STEPS)
    assert request_kills.steps_of(person.training.stores, run) == list(range(1, STEPS + 1))


def test_a_node_that_dies_while_it_adopts_goes_on_by_adopting_again_or_by_resuming(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = person.run(segment_steps=STEPS // 2)
    coordinator, runs = person.training.coordinator, person.training.stores.runs

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def adopt_and_die(kit: Kit) -> None:
        with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
            dying.setattr(coordinator, "collect", die)
            person.adopt(kit)

    first = person.kit(run)
    person.follow(first)
    adopt_and_die(first)
    assert "adopted step" in (person.adopt(first).reason or "")
    second = person.kit(run)
    person.follow(second)
    adopt_and_die(second)
    request_kills.quick(person.training).launch()
    person.training.runs.resume(run.id)
    assert wait_for_end(person.training.stores.runs, run.id).artifact == expected_adapter(CORPUS, STEPS)
    assert [segment.state for segment in runs.segments(run.id)] == [SegmentState.PAUSED, SegmentState.DONE]
    assert len(person.emulated.disk.requests("SaveKernel")) == 2, "nothing was trained again"


@pytest.mark.slow
def test_a_copy_of_a_notebook_that_the_node_pushed_is_adopted(person: Person, tmp_path: Path) -> None:
    """As with Copy & Edit on the web: the segment itself was lost, and its copy ends the run."""
    lost = Fault(kind=FaultKind.SESSION_ERROR, call="SaveKernel", seconds=0.0, once="lost")
    person.emulated.disk.faults.add(lost)
    (tmp_path / "hold").touch()
    run = person.run(base=fake_base(held=(tmp_path / "hold", 0)))
    request_kills.quick(person.training).launch()
    person.training.runs.resume(run.id)
    working = "kernels/ada/*/versions/1/kaggle/working"
    [found] = wait_until(lambda: list(person.emulated.disk.root.glob(working)))
    person.training.runs.pause(run.id)
    (found / "lost").touch()
    (tmp_path / "hold").unlink()
    wait_until(lambda: person.training.stores.runs.get(run.id).state is RunState.PAUSED)
    [pushed] = (request["body"] for request in person.emulated.disk.requests("SaveKernel"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "script.py").write_text(pushed["text"])
    metadata = {
        "id": "ada/copy-of-it",
        "title": "copy-of-it",
        "code_file": "script.py",
        "language": "python",
        "kernel_type": "script",
        "dataset_sources": pushed["datasetDataSources"],
    }
    (tmp_path / "copy" / "kernel-metadata.json").write_text(json.dumps(metadata))
    commands = (f"kaggle kernels push -p {tmp_path / 'copy'}", "kaggle kernels status ada/copy-of-it")
    kit = Kit(commands=commands, address="kaggle://ada/copy-of-it")
    person.follow(kit)
    assert person.adopt(kit).artifact == expected_adapter(CORPUS, STEPS)
    assert request_kills.steps_of(person.training.stores, run) == list(range(1, STEPS + 1))


def test_work_is_taken_while_it_runs_by_nobody(person: Person) -> None:
    kit = person.kit(person.run(steps=100_000))
    person.follow(kit, until="QUEUED|RUNNING")
    with pytest.raises(BackendError, match=r"QUEUED|RUNNING") as refused:
        person.adopt(kit)
    assert "wait for its end" in refused.value.fix


def test_what_is_changed_foreign_or_out_of_turn_is_refused_by_name_and_changes_nothing(
    person: Person, tmp_path: Path
) -> None:
    """One session serves for all the refusals: each leaves the run as it was."""
    run = person.run(label=Label.PRIVATE)
    kit = person.kit(run)
    person.follow(kit)
    runs, coordinator = person.training.stores.runs, person.training.coordinator

    def refused(error: type[EliasError], what: str, adoption: Adoption, backend: Any) -> None:
        before = runs.segments(run.id)
        with pytest.raises(error, match=what) as raised:
            adoption.adopt("kaggle", backend, kit.address)
        assert raised.value.fix
        assert runs.segments(run.id) == before and runs.get(run.id).artifact is None

    own = Adoption(coordinator), person.backend
    sealed = person.output(kit) / "adapter.pack.age"
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(DigestMismatch, r"adapter\.pack\.age", *own)
    sealed.write_bytes(whole)

    other = kaggle_kills.config_of(tmp_path / "other", person.emulated.url, str(tmp_path / "template.py"))
    make_node(other)
    context = backend_context(other, "kaggle")
    refused(VerificationError, "cannot be opened with this key", Adoption(coordinator), KaggleBackend(context))
    with_our_key = replace(context, node_key=backend_context(person.config, "kaggle").node_key)
    with open_training(other, request_kills.parts_of(other.home)) as training:
        refused(NotFound, run.id, Adoption(training.coordinator), KaggleBackend(with_our_key))

    [laid_out] = (person.home / "runs" / run.id / "by-hand").rglob("job.json")
    laid_out.rename(laid_out.with_suffix(".away"))
    refused(InputError, "laid out no job", *own)
    laid_out.with_suffix(".away").rename(laid_out)

    end = Checkpoint(step=30, digest=digest_bytes(b"elsewhere"), path="segments/0001/out/checkpoint/step-00000030")
    runs.put_segment(Segment(run=run.id, number=1, backend="kaggle", state=SegmentState.PAUSED, end=end))
    refused(Refused, "began from the base, and .* has reached step 30", *own)


def test_only_a_run_that_stands_is_laid_out(person: Person) -> None:
    for state in (RunState.RUNNING, RunState.CANCELLED):
        run = person.run()
        person.training.stores.runs.update(run.id, state=state)
        with pytest.raises(Refused, match=str(state)):
            person.kit(run)


def test_what_is_laid_out_for_a_person_shows_nothing_private_and_secret_data_stays(person: Person) -> None:
    kit = person.kit(person.run(label=Label.PRIVATE))
    folder = next((person.home / "kits").iterdir())
    assert [p for p in folder.rglob("*") if p.is_file() and CORPUS[2:40] in p.read_bytes()] == []
    assert (folder / "key").stat().st_mode & 0o077 == 0 and "key" in " ".join(kit.commands)
    with pytest.raises(LabelForbids):
        person.kit(person.run(label=Label.SECRET))


@pytest.mark.slow
def test_typed_from_one_end_to_the_other_the_real_trainer_ends_in_a_signed_model(
    person: Person, tmp_path: Path
) -> None:
    """The first session is left without a result, as when its time runs out: its checkpoint comes home all the same."""
    (tmp_path / "m.py").write_text("".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8)))
    (person.home / "config.toml").write_text(
        f'[backends.kaggle]\nbase_url = "{person.emulated.url}"\ntemplate = "{tmp_path / "template.py"}"\n'
    )
    elias(person, "capture", "code", str(tmp_path / "m.py"))
    elias(person, "corpus", "build")
    recipe = Recipe(max_steps=2, batch_size=2, sequence_length=256, rank=4)
    asked = Wanted(strategy="kaggle", base=BaseModel(reference="tiny"), recipe=recipe, bounds=Bounds(segment_steps=1))
    stores = person.training.stores
    run = new_run(asked, stores.corpora.get("latest"), SystemClock())
    stores.runs.add(run)
    stores.runs.update(run.id, state=RunState.PAUSED)
    for number in (1, 2):
        kit = by_hand(person, run, tmp_path / f"kit-{number}")
        person.follow(kit)
        if number == 1:
            leave_no_result(person.output(kit))
        said = elias(person, "run", "adopt", kit.address)
        assert said.strip().endswith(run.id)
    elias(person, "model", "verify", "latest")
    done = stores.runs.get(run.id)
    assert done.state is RunState.DONE and done.artifact is not None
    folder = person.home / "artifacts" / "sha256" / done.artifact.hex
    found = verify_artifact(folder, node_signer(person.config), done.artifact)
    links = [(link.outcome, link.start_step, link.end_step, link.backend) for link in found.receipt.segments]
    assert links[0] == ("failed", 0, 1, "kaggle") and links[1][:2] == ("done", 1)
    assert all(link.job and link.trainer for link in found.receipt.segments)


def by_hand(person: Person, run: Run, folder: Path) -> Kit:
    *commands, last = elias(person, "kaggle", "by-hand", run.id, "--out", str(folder)).splitlines()
    return Kit(commands=tuple(commands), address=last.removeprefix("elias run adopt "))


def leave_no_result(output: Path) -> None:
    (output / "result.json").unlink()
    box = json.loads((output / "outbox.json").read_bytes())
    del box["files"]["result.json"]
    (output / "outbox.json").write_text(json.dumps(box))


def elias(person: Person, *words: str) -> str:
    environment = os.environ | {"ELIAS_HOME": str(person.home)}
    command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done.stdout
