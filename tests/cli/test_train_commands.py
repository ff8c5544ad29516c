"""train, run, plan and metrics as a person types them, with the fake trainer behind the wall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from elias.cli.progress import Watch
from elias.cli.shell import run_command
from elias.config import load
from elias.domain.run import RunState, SegmentState
from elias.testing.fake_trainer import build_fake_trainer
from elias.testing.nouns import a_run, a_segment
from elias.wiring import train as wiring
from elias.wiring.attest import make_node
from elias.wiring.corpus import open_blobs
from elias.wiring.train import open_training
from elias_trainer.contract import digest_file

CODE = "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    (tmp_path / "m.py").write_text(CODE)

    def fake_parts(config, stores):
        adapter = "adapter/adapter_model.safetensors"
        return wiring.Parts(
            archive=build_fake_trainer,
            finish=lambda run, segments, out: digest_file(out / adapter),
            blobs=open_blobs(config),
        )

    monkeypatch.setattr(wiring, "_real_parts", fake_parts)
    make_node(load())
    return tmp_path / "home"


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


def test_from_a_source_tree_to_a_finished_run_and_its_numbers(tmp_path, capsys):
    train = "--base fake:step_s=0.005 --steps 7 --segment-steps 4 --json"
    assert elias(f"train --data {tmp_path / 'm.py'} {train}") == 0
    told = capsys.readouterr()
    run = json.loads(told.out)
    assert run["state"] == "done" and [s["end"]["step"] for s in run["segments"]] == [4, 7]
    assert "segment 2: done at step 7" in told.err

    assert elias("metrics latest --json") == 0
    assert [s["step"] for s in json.loads(capsys.readouterr().out)["steps"]] == list(range(1, 8))
    assert elias("run list --json") == 0
    assert [r["id"] for r in json.loads(capsys.readouterr().out)] == [run["id"]]
    assert elias(f"run show {run['id']}") == 0
    assert run["artifact"] in capsys.readouterr().out
    assert elias("run logs latest") == 0
    assert "done at step 7" in capsys.readouterr().out
    assert elias("metrics") == 0
    assert "7/7" in capsys.readouterr().out

    for command in ("run watch", "run show", "run logs", f"run show {run['id'][:-2]}"):
        assert elias(f"{command} --json") == 0, "a run that has ended is shown as it ended"
        assert run["id"] in capsys.readouterr().out
    assert elias("run watch") == 0
    assert "7 steps" in capsys.readouterr().out

    assert elias("run cancel latest") == 4, "a finished run cannot be cancelled"
    assert "begin another one" in capsys.readouterr().err


def test_a_failed_run_says_why_and_how_to_go_on(tmp_path, capsys):
    assert elias(f"train --data {tmp_path / 'm.py'} --base fake:fail=user@3 --steps 5") == 2
    told = capsys.readouterr().err
    assert "step 3" in told and "fix:" in told and "elias run resume" in told


def test_a_plan_names_the_place_and_starts_nothing(tmp_path, capsys):
    assert elias(f"train --data {tmp_path / 'm.py'} --base fake:step_s=0.001 --steps 1") == 0
    capsys.readouterr()
    assert elias("plan --base tiny --max-minutes 5 --json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["segments"][0]["offer"]["backend"] == "local" and plan["segments"][0]["span"] == 300
    assert elias("run list --json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("train --base tiny", 3, "there is no corpus yet"),
        ("train --base tiny --epochs 1 --steps 2", 2, "--epochs and --steps"),
        ("train --base ./not-there", 3, "no base model"),
        ("train --corpus abcdef --base tiny", 3, "abcdef"),
        ("run show nope", 3, "nope"),
        ("run resume latest", 3, "no run yet"),
        ("metrics nope", 3, "nope"),
        ("plan --base tiny", 3, "there is no corpus yet"),
    ],
)
def test_what_is_not_there_or_contradicts_itself_has_its_code_and_a_fix(line, code, said, capsys):
    assert elias(line) == code
    told = capsys.readouterr().err
    assert said in told and "fix:" in told


def test_a_strategy_nobody_knows_is_not_found(tmp_path, capsys):
    assert elias(f"train --data {tmp_path / 'm.py'} --base tiny --strategy moon") == 3
    assert "no backend is called 'moon'" in capsys.readouterr().err


def test_with_no_gpu_and_no_choice_it_trains_the_starter_and_says_so(capsys):
    base, note = wiring.default_base(load())
    assert (base == "starter" and "no GPU" in note) or (base == wiring.REAL_BASE and note is None)


def test_a_segment_under_way_elsewhere_is_shown_with_how_far_it_is(capsys):
    run = replace(a_run(), state=RunState.RUNNING, strategy="lab")
    step = {"seq": 1, "at": "2026-11-28T12:00:00Z", "kind": "step", "step": 3, "step_total": 7, "loss": 1.25}
    with open_training(load()) as training:
        runs = training.stores.runs
        runs.add(run)
        runs.put_segment(replace(a_segment(), backend="lab", state=SegmentState.RUNNING))
        runs.append_events(a_segment().key, [step])
        with Watch(training, run.id):
            assert "segment 1: on lab, running, step 3 of 7, loss 1.2500" in capsys.readouterr().err
    assert elias(f"run show {run.id}") == 0
    assert "step 3 of 7, loss 1.2500" in capsys.readouterr().out


def test_before_init_no_run_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "another"))
    assert elias(f"train --data {tmp_path / 'm.py'} --base fake:step_s=0.005 --steps 2 --yes") == 2
    assert "fix: elias init" in capsys.readouterr().err
    assert elias("run list") == 0 and "no runs yet" in capsys.readouterr().out


def test_what_no_place_will_ever_take_is_not_begun(tmp_path, capsys):
    too_large = "--base starter --method full --batch-size 100000 --sequence-length 8192 --steps 2 --yes"
    assert elias(f"train --data {tmp_path / 'm.py'} {too_large}") == 4
    told = capsys.readouterr().err
    assert "GiB of memory" in told and "no run was begun" in told
    assert elias("run list") == 0 and "no runs yet" in capsys.readouterr().out
