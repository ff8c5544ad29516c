"""Held-out losses by the command, over files, as a node starts it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from elias_trainer import score
from elias_trainer.contract import BaseModel, Digest, Input, ScoreJob, digest_file, to_json, tree_digest


class Bench:
    """A folder with a base, adapters, a corpus and a score.json."""

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        self.folder, self.out, self.tokenizer = folder, folder / "out", tokenizer
        self.inputs: list[Input] = []
        self.corpus_digest: Digest | None = None

    def save(self, name: str, model: Any) -> Path:
        model.save_pretrained(self.folder / name)
        return self.folder / name

    def save_base(self, model: Any) -> None:
        self.tokenizer.save_pretrained(self.save("base", model))

    def add(self, name: str, model: Any) -> None:
        self.inputs.append(Input(path=name, digest=tree_digest(self.save(name, model))))

    def write_corpus(self, lines: list[dict[str, Any]]) -> None:
        filled = [{"id": f"e{number}"} | line for number, line in enumerate(lines)]
        (self.folder / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in filled))

    def run(self, **changes: Any) -> int:
        digest = self.corpus_digest or digest_file(self.folder / "heldout.jsonl")
        job = ScoreJob(
            base=BaseModel(reference=str(self.folder / "base")),
            adapters=tuple(self.inputs),
            corpus=Input(path="heldout.jsonl", digest=digest),
            **changes,
        )
        (self.folder / "score.json").write_bytes(to_json(job))
        return score.main(["--job", str(self.folder / "score.json"), "--out", str(self.out), "--threads", "2"])

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "scores.jsonl").read_bytes().splitlines()]


@pytest.fixture
def bench(
    tmp_path: Path,
    tokenizer: Any,
    tiny_llama: Callable[..., torch.nn.Module],
    tiny_lora: Callable[..., PeftModel],
    chat: Any,
) -> Bench:
    made = Bench(tmp_path, tokenizer)
    made.save_base(tiny_llama())
    made.add("lora", tiny_lora())
    made.write_corpus([chat("write it" * n, "return n" * (n % 3 + 1)) for n in range(1, 8)])
    return made


def losses_of(model: Any, bench: Bench) -> list[float]:
    """Each example by itself, in the plainest way."""
    found = []
    for line in (bench.folder / "heldout.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        template = bench.tokenizer.apply_chat_template
        prompt = bench.tokenizer(template(messages[:-1], tokenize=False, add_generation_prompt=True))["input_ids"]
        ids = torch.tensor([bench.tokenizer(template(messages, tokenize=False))["input_ids"]])
        with torch.no_grad():
            likelihoods = torch.log_softmax(model.eval()(ids).logits[0, :-1], dim=-1)
        picked = likelihoods.gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
        found.append(-picked.sum().item())
    return found


def test_each_contender_is_scored_on_the_same_tokens(
    bench: Bench, tiny_llama: Callable[..., torch.nn.Module], tiny_lora: Callable[..., PeftModel]
) -> None:
    whole = tiny_llama()
    for parameter in whole.parameters():
        parameter.data *= 1.5
    bench.add("whole", whole)
    bench.add("second", _scaled(tiny_lora()))

    assert bench.run() == 0

    lines = bench.lines()
    assert [line["example"] for line in lines] == [f"e{n}" for n in range(7)]
    expected = {
        "base": losses_of(tiny_llama(), bench),
        "lora": losses_of(tiny_lora(), bench),
        "second": losses_of(_scaled(tiny_lora()), bench),
        "whole": losses_of(whole, bench),
    }
    assert {name for line in lines for name in line["nll"]} == expected.keys()
    for name, losses in expected.items():
        assert [line["nll"][name] for line in lines] == pytest.approx(losses, abs=1e-3)
    assert len({tuple(losses) for losses in expected.values()}) == 4
    assert all(line["tokens"] > 0 for line in lines)


def _scaled(model: PeftModel) -> PeftModel:
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data *= 2
    return model


def test_batch_size_changes_no_score(bench: Bench) -> None:
    assert bench.run(batch_size=1) == 0
    alone = bench.lines()
    assert bench.run(batch_size=5) == 0

    for one, other in zip(alone, bench.lines(), strict=True):
        assert one["nll"] == pytest.approx(other["nll"], abs=1e-3)


def test_lines_are_canonical_and_events_tell_how_far_it_is(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run() == 0

    data = (bench.out / "scores.jsonl").read_bytes()
    again = [json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")) for line in data.splitlines()]
    assert data.decode() == "".join(line + "\n" for line in again)
    events = [json.loads(line[12:]) for line in capfd.readouterr().out.splitlines() if line.startswith("ELIAS-EVENT ")]
    assert [event["kind"] for event in events][:3] == ["started", "loaded", "loaded"]
    last = events[-2]
    assert last["kind"] == "step" and last["step"] == last["step_total"] == events[2]["step_total"] == 4
    assert events[-1]["kind"] == "ended"


def test_what_cannot_be_scored_is_left_out_and_said(bench: Bench, chat: Any, capfd: pytest.CaptureFixture[str]) -> None:
    bench.write_corpus([chat("q", "a"), chat("long" * 90, "a"), chat("q", chosen="a", rejected="b"), chat("q", "b")])

    assert bench.run(sequence_length=64) == 0

    assert [line["example"] for line in bench.lines()] == ["e0", "e3"]
    assert "2 examples are pairs or have no answer within sequence_length" in capfd.readouterr().out


def test_an_example_of_no_weight_is_scored_all_the_same(bench: Bench, chat: Any) -> None:
    bench.write_corpus([chat("q", "a", weight_ppm=0)])

    assert bench.run() == 0

    assert [line["example"] for line in bench.lines()] == ["e0"]


@pytest.mark.parametrize("name", ["heldout.jsonl", "lora/adapter_model.safetensors", "lora/adapter_config.json"])
def test_a_changed_input_is_refused_by_name_before_anything_is_scored(
    name: str, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.corpus_digest = digest_file(bench.folder / "heldout.jsonl")
    data = bytearray((bench.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bench.folder / name).write_bytes(data)

    assert bench.run() == 4

    assert name.split("/")[0] in capfd.readouterr().err
    assert not (bench.out / "scores.jsonl").exists()


def test_an_adapter_of_another_base_is_refused(
    bench: Bench, tiny_lora: Callable[..., PeftModel], capfd: pytest.CaptureFixture[str]
) -> None:
    bench.add("wide", tiny_lora(hidden_size=64))

    assert bench.run() == 4

    assert "wide does not fit the base" in capfd.readouterr().err


def test_an_adapter_with_an_extra_tensor_is_refused(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    path = bench.folder / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)}, path)
    bench.inputs = [Input(path="lora", digest=tree_digest(bench.folder / "lora"))]

    assert bench.run() == 4

    assert "layers.9" in capfd.readouterr().err


def test_weights_that_are_not_numbers_are_refused(
    bench: Bench, tiny_lora: Callable[..., PeftModel], capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tiny_lora()
    for name, parameter in broken.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(float("nan"))
    bench.add("broken", broken)

    assert bench.run() == 4

    assert "broken gives losses that are not numbers" in capfd.readouterr().err


def test_pickled_weights_are_never_read(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    folder = bench.folder / "lora"
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    bench.inputs = [Input(path="lora", digest=tree_digest(folder))]

    assert bench.run() == 4

    assert "lora is not a whole adapter" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "Expecting"), ('{"schema":"elias.score/9"}', "elias.score/9"), (None, "there is no")],
)
def test_a_job_that_cannot_be_read_is_the_user_s_to_mend(
    text: str | None, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "score.json").write_text(text)

    assert score.main(["--job", str(tmp_path / "score.json"), "--out", str(tmp_path / "out")]) == 2

    found = capfd.readouterr().err
    assert complaint in found and "fix: " in found


def test_a_broken_line_is_named(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "heldout.jsonl").write_text('{"id":"a"}\n')

    assert bench.run() == 2

    assert "heldout.jsonl:1: `messages` is missing" in capfd.readouterr().err


def test_a_corpus_with_nothing_to_score_is_refused(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "heldout.jsonl").write_text("")

    assert bench.run() == 2

    assert "no example that can be scored" in capfd.readouterr().err
