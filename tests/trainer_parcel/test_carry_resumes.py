"""A carrier that a place starts again on another machine, with the outbox as it was copied there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyrage
import pytest

import elias_trainer.parcel
from elias.adapters.backends.parcels import Destination, make_parcel, open_outbox
from elias.domain.label import Label
from elias.testing.bundles import CORPUS, Wanted, make_bundle
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.waiting import PATIENCE_S
from elias_trainer import carry
from elias_trainer.contract import Limits, Recipe, digest_file, tree_digest, write_whole
from elias_trainer.folders import drop_folder
from elias_trainer.parcel import NOTE_PREFIX, NotWhole, Outbox, pack, unpack

STEPS, HELD_AT = 60, 30
NODE_KEY = str(pyrage.x25519.Identity.generate())
STOPPED_EARLY = """
import os, pathlib, signal, subprocess, sys, time
from elias_trainer import carry

events = pathlib.Path(sys.argv[sys.argv.index("--work") + 1], "out", "events.jsonl")

class Stopped(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        while not events.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Stopped
sys.exit(carry.main(sys.argv[1:]))
"""
"""A carrier that is told to stop before it has heard that its trainer runs."""


def command(folder: Path, life: int) -> list[str]:
    """Each life has a machine of its own: all that it shares with the one before is the outbox."""
    words = [sys.executable, "-I", str(folder / "parcel" / "trainer.bin"), "carry", "--resume"]
    words += ["--parcel", str(folder / "parcel"), "--work", str(folder / f"work-{life}")]
    words += ["--outbox", str(folder / "outbox"), "--model", str(folder / "model")]
    return [*words, "--key", str(folder / "segment.key")] if (folder / "segment.key").exists() else words


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "outbox").glob("checkpoint-*.json"))


def killed_on_its_way(folder: Path, least: int) -> None:
    """However late the kill comes: with the file `hold` in `folder` the trainer gets no further than a checkpoint."""
    process = subprocess.Popen(command(folder, 1), stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + PATIENCE_S
    # two of them: on a busy machine the first that is shipped may be later than `least`
    while len(found := checkpoints(folder)) < 2 or int(found[-1].stem[11:]) < least:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("label", [Label.PUBLIC, Label.PRIVATE])
def test_the_next_machine_goes_on_from_the_newest_checkpoint_that_arrived_whole(tmp_path: Path, label: Label) -> None:
    wanted = Wanted(
        recipe=Recipe(max_steps=STEPS),
        base=fake_base(step_s=0.02, held=(tmp_path / "hold", HELD_AT)),
        limits=Limits(checkpoint_every_s=0),
        label=label,
    )
    (tmp_path / "hold").touch()
    bundle = make_bundle(tmp_path / "bundle", "carried-0001", wanted)
    make_parcel(bundle, tmp_path / "parcel", Destination(node_key=NODE_KEY))
    killed_on_its_way(tmp_path, 6)
    (tmp_path / "hold").unlink()
    older, newest = checkpoints(tmp_path)[-2:]
    [torn] = newest.parent.glob(f"{newest.stem}.pack*")
    torn.write_bytes(torn.read_bytes()[:-20])  # as when the copy to where outputs are kept was cut off
    (tmp_path / "outbox" / "outbox.json").write_bytes(b"{")
    done = subprocess.run(command(tmp_path, 2), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    notes = [json.loads(line.removeprefix(NOTE_PREFIX)) for line in done.stdout.splitlines() if NOTE_PREFIX in line]
    assert [note["step"] for note in notes if note["kind"] == "resumed"] == [int(older.stem[11:])]
    open_outbox(tmp_path / "model", tmp_path / "home", NODE_KEY)
    assert digest_file(tmp_path / "home" / "adapter" / "adapter_model.safetensors") == expected_adapter(CORPUS, STEPS)
    assert json.loads((tmp_path / "home" / "result.json").read_bytes())["started_at_step"] == int(older.stem[11:])
    seqs = [json.loads(line)["seq"] for line in (tmp_path / "outbox" / "events.jsonl").read_text().splitlines()]
    assert seqs == list(range(len(seqs)))


@pytest.mark.parametrize(
    ("place", "call"),
    [(carry, "tree_digest"), (elias_trainer.parcel, "_tar"), (tarfile.TarFile, "addfile")],
    ids=["before", "between digest and archive", "between two files"],
)
def test_a_checkpoint_that_is_rotated_away_while_it_is_read_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, call: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle", "carried-0001", Wanted())
    parcel = make_parcel(bundle, tmp_path / "parcel", Destination(node_key=NODE_KEY))
    shipper = carry._Shipper(out=tmp_path / "out", outbox=tmp_path / "outbox", parcel=parcel)
    shipper.outbox.mkdir()
    for step in (7, 8):
        for name in ("state.json", "state.safetensors"):
            write_whole(shipper.out / f"checkpoint/step-{step:08d}" / name, b"{}")
    old, real = shipper.out / "checkpoint/step-00000007", getattr(place, call)

    def rotating(*arguments: object, **named: object) -> object:
        answer = real(*arguments, **named) if call == "addfile" else None
        if old.exists():
            drop_folder(old)
        return answer if call == "addfile" else real(*arguments, **named)

    monkeypatch.setattr(place, call, rotating)
    shipper.ship_checkpoints()
    box = Outbox.read_from(shipper.outbox / "outbox.json")
    assert [ref.step for ref in box.checkpoints] == [8]
    assert [path.name for path in shipper.outbox.glob("*.pack*")] == [box.checkpoints[0].path] == [*box.files]
    assert not list(tmp_path.glob("**/.*.tar"))
    unpack(shipper.outbox / box.checkpoints[0].path, tmp_path / "home", NODE_KEY)
    assert tree_digest(tmp_path / "home") == box.checkpoints[0].digest


def test_a_checkpoint_that_is_rotated_away_once_it_is_read_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a trainer that makes them quicker than they are sealed would have none at home."""
    folder = tmp_path / "step-00000007"
    write_whole(folder / "state.json", b"{}")
    digest, copy = tree_digest(folder), shutil.copyfile

    def rotating(source: Path, target: Path) -> None:
        drop_folder(folder)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", rotating)
    pack(folder, tmp_path / "c.pack")
    unpack(tmp_path / "c.pack", tmp_path / "home")
    assert tree_digest(tmp_path / "home") == digest


def test_the_trainers_deadline_is_no_later_than_the_places(tmp_path: Path) -> None:
    wanted = Wanted(recipe=Recipe(max_steps=100_000), limits=Limits(seconds=3600))
    bundle = make_bundle(tmp_path / "bundle", "carried-0001", wanted)
    make_parcel(bundle, tmp_path / "parcel", Destination(node_key=NODE_KEY))
    done = subprocess.run([*command(tmp_path, 1), "--limit", "0.5"], capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0
    result = json.loads((tmp_path / "outbox" / "result.json").read_bytes())
    assert (result["outcome"], result["reason"]) == ("paused", "deadline")


def test_one_that_is_stopped_while_it_starts_its_trainer_leaves_a_checkpoint(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "carried-0001", Wanted(recipe=Recipe(max_steps=100_000)))
    make_parcel(bundle, tmp_path / "parcel", Destination(node_key=NODE_KEY))
    words = command(tmp_path, 1)
    done = subprocess.run([words[0], "-c", STOPPED_EARLY, *words[4:]], stdout=subprocess.DEVNULL)
    assert done.returncode == 0
    result = json.loads((tmp_path / "outbox" / "result.json").read_bytes())
    assert (result["outcome"], result["reason"]) == ("paused", "signal") and checkpoints(tmp_path)


def test_a_failure_is_written_where_the_place_shows_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", "carried-0001", Wanted(base=fake_base(fail="user@3")))
    make_parcel(bundle, tmp_path / "parcel", Destination(node_key=NODE_KEY))
    failure = tmp_path / "failure"
    done = subprocess.run([*command(tmp_path, 1), "--failure", str(failure)], capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 1 and failure.read_text() == "told to fail at step 3"


@pytest.mark.parametrize("kind", ["outside", "absolute", "link"])
def test_an_archive_that_leads_out_of_its_folder_is_not_opened(tmp_path: Path, kind: str) -> None:
    """On every Python 3.11: tarfile's own filter came with 3.11.4."""
    member = tarfile.TarInfo({"outside": "../evil", "absolute": str(tmp_path / "evil"), "link": "evil"}[kind])
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "a.pack", "w") as archive:
        archive.addfile(member)
    with pytest.raises(NotWhole, match="no file of a folder"):
        unpack(tmp_path / "a.pack", tmp_path / "in" / "opened")
    assert not (tmp_path / "in" / "opened").exists() and not list(tmp_path.rglob("evil"))
