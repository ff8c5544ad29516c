"""A run that is handed over between unlike hardware: exact in steps, data and optimizer, and as good within noise."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest
from safetensors.torch import load_file

from elias_trainer import loading
from elias_trainer.contract import (
    TINY,
    BaseModel,
    Digest,
    Input,
    Limits,
    Precision,
    ScoreJob,
    digest_file,
    to_json,
    tree_digest,
)
from elias_trainer.device import Device
from tests.trainer.conftest import Place, cache, chats, place

__all__ = ["cache", "place"]
STEPS, HANDED_OVER_AT = 8, (2, 4, 6)
RECIPE = {"max_steps": STEPS, "dropout": 0.1, "learning_rate": 2e-3, "lines": chats(24)}
CHAIN = (Precision.FP32, Precision.BF16, Precision.FP16, Precision.FP32)
"""Such as a CPU, an A10G, a T4, and a CPU again."""
SEEDS = (7, 11, 12, 13, 14)
"""The first one is also that of the run that is handed over."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Precision], None]:
    """From now on the trainer finds this precision on its device; the arithmetic is the CPU's own of that width."""

    def found(precision: Precision) -> None:
        device = Device(name=f"cpu in {precision}", count=1, torch_device="cpu", precision=precision)
        monkeypatch.setattr(loading, "find_device", lambda recipe, *, world_size, local_rank: device)

    return found


@pytest.fixture
def chain(place, machine) -> list[Place]:
    """The segments of one run, each on another machine than the one before."""
    made: list[Place] = []
    for number, precision in enumerate(CHAIN):
        machine(precision)
        stop = Limits(stop_at_step=HANDED_OVER_AT[number]) if number < len(HANDED_OVER_AT) else Limits()
        made.append(follow(place, made[-1] if made else None, f"segment-{number}", limits=stop))
        assert made[-1].run() == 0
    machine(Precision.FP32)
    return made


def follow(place, before, name, **given):
    if before is None:
        return place(name, **RECIPE, **given)
    last = before.result.checkpoint
    start = Input(path=last.path, digest=Digest(last.digest))
    made = place(name, segment=f"run-{name}", checkpoint=start, **RECIPE, **given)
    shutil.copytree(before.out / last.path, made.root / "in" / last.path)
    return made


def story(made: Place, field: str) -> dict[int, object]:
    return {event["step"]: event[field] for event in made.events if event["kind"] == "step"}


def test_steps_data_and_schedule_go_on_exactly_and_each_segment_says_its_precision(place, chain):
    stayed = place("stayed", **RECIPE)
    assert stayed.run() == 0
    # the tokens of a step tell which examples it saw
    for field in ("tokens", "epoch", "learning_rate"):
        handed = [step for made in chain for step in story(made, field).items()]
        assert [step for step, _ in handed] == list(range(1, STEPS + 1)), "a step was lost or repeated"
        assert dict(handed) == story(stayed, field)
    assert len(set(story(stayed, "tokens").values())) > 1
    assert [made.result.precision for made in chain] == [str(precision) for precision in CHAIN]
    losses = {step: loss for made in chain for step, loss in made.steps().items()}
    assert losses == pytest.approx(stayed.steps(), rel=0.02) and losses != stayed.steps()


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_adapter_and_optimizer_cross_to_another_precision_bit_by_bit(place, machine, monkeypatch, precision):
    machine(Precision.FP32)
    first = follow(place, None, "first", limits=Limits(stop_at_step=2))
    assert first.run() == 0
    machine(precision)
    second = follow(place, first, "second", limits=Limits(stop_at_step=3))
    arrived, load = {}, loading.load

    def seen(*arguments):
        work = load(*arguments)
        arrived.update({name: tensor.clone() for name, tensor in work.tensors().items()})
        return work

    monkeypatch.setattr(loading, "load", seen)
    assert second.run() == 0
    sent = load_file(first.out / first.result.checkpoint.path / "state.safetensors")
    assert arrived.keys() == sent.keys() and any(name.startswith("optimizer/exp_avg_sq/") for name in sent)
    for name, tensor in sent.items():
        assert tensor.dtype == arrived[name].dtype and tensor.equal(arrived[name]), name


@pytest.mark.slow
def test_the_held_out_loss_of_a_run_handed_over_three_times_is_within_noise(place, chain, tmp_path, cache):
    stayed = {}
    for seed in SEEDS:
        made = place(f"seed-{seed}", seed=seed, **RECIPE)
        assert made.run() == 0
        stayed[seed] = made
    losses = heldout(tmp_path / "score", cache, {"handed": chain[-1], **{f"seed-{s}": p for s, p in stayed.items()}})
    noise = statistics.stdev(losses[f"seed-{seed}"] for seed in SEEDS)
    assert all(loss < losses["base"] for name, loss in losses.items() if name != "base")
    assert 0 < abs(losses["handed"] - losses[f"seed-{SEEDS[0]}"]) < noise


def heldout(folder, cache, places) -> dict[str, float]:
    """Nats a token."""
    folder.mkdir()
    (folder / "heldout.jsonl").write_bytes(b"".join(chats(36).splitlines(keepends=True)[24:]))
    adapters = []
    for name, made in places.items():
        shutil.copytree(made.out / "adapter", folder / name)
        adapters.append(Input(path=name, digest=tree_digest(folder / name)))
    corpus = Input(path="heldout.jsonl", digest=digest_file(folder / "heldout.jsonl"))
    job = ScoreJob(base=BaseModel(reference=TINY), adapters=tuple(adapters), corpus=corpus, sequence_length=96)
    (folder / "score.json").write_bytes(to_json(job))
    out = folder / "out"
    command = [sys.executable, "-m", "elias_trainer", "score", "--job", str(folder / "score.json"), "--out", str(out)]
    subprocess.run([*command, "--cache", str(cache)], check=True, capture_output=True)
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_bytes().splitlines()]
    tokens = sum(line["tokens"] for line in lines)
    return {name: sum(line["nll"][name] for line in lines) / tokens for name in lines[0]["nll"]}
