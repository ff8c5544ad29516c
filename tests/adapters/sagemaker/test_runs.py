"""Whole runs on the emulated SageMaker, through the real coordinator, engine, stores and money ledger."""

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import kaggle_kills
import pytest
import request_kills
import sagemaker_kills

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.clock import SystemClock
from elias.config.schema import Budget
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, RunState, Segment
from elias.domain.spend import dollars
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, questions, small_corpus
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.sagemaker_emulator import Fault, FaultKind, SageMakerEmulator
from elias.testing.waiting import PATIENCE_S, wait_for_end, wait_until
from elias.units import FREE, Money
from elias.urm import CloudTraining
from elias.wiring.train import Training, open_training
from elias_trainer.contract import BaseModel, FailureKind, Recipe, digest_file

STEPS = 24


Carry = Callable[..., tuple[Run, list[Segment]]]


@pytest.fixture
def carry(emulated: SageMakerEmulator, account: Any, tmp_path: Path) -> Carry:
    def to_its_end(bounds: dict[str, Any], **settings: Any) -> tuple[Run, list[Segment]]:
        home = tmp_path / "node"
        config = sagemaker_kills.config_of(home, emulated.url, **settings)
        with open_training(config, request_kills.parts_of(home)) as training:
            corpus = small_corpus(FolderBlobs(home / "blobs"), Label.PUBLIC, SystemClock().now())
            training.stores.corpora.add(corpus)
            run = new_run(sagemaker_kills.wanted(STEPS, **bounds), corpus, SystemClock())
            request_kills.quick(training).launch()
            training.runs.begin(run)
            runs = training.stores.runs
            wait_until(lambda: runs.get(run.id).state.is_standing, lambda: runs.get(run.id))
            return runs.get(run.id), list(runs.segments(run.id))

    return to_its_end


def test_a_corrupted_model_costs_another_segment_and_not_the_run(carry: Carry, emulated: SageMakerEmulator) -> None:
    emulated.disk.faults.add(Fault(kind=FaultKind.CORRUPTED_MODEL))
    run, segments = carry({})
    assert run.state is RunState.DONE and run.artifact == expected_adapter(CORPUS, STEPS)
    assert segments[0].failure is not None and "model.tar.gz is not whole" in segments[0].failure.message
    assert [segment.end.step for segment in segments if segment.end] == [STEPS, STEPS]


def test_a_run_without_capacity_tries_again_and_pays_only_for_what_ran(
    carry: Carry, emulated: SageMakerEmulator
) -> None:
    emulated.disk.faults.add(Fault(kind=FaultKind.INSUFFICIENT_CAPACITY))
    run, segments = carry({})
    assert run.state is RunState.DONE and run.artifact == expected_adapter(CORPUS, STEPS)
    assert segments[0].failure is not None and segments[0].failure.kind is FailureKind.CAPACITY
    assert segments[0].cost == FREE < segments[1].cost


@pytest.mark.skipif(shutil.which("aws") is None, reason="the aws command line is not installed here")
def test_an_unmodified_aws_command_line_reads_what_a_run_has_made(
    carry: Carry, emulated: SageMakerEmulator, account: Any, tmp_path: Path
) -> None:
    run, _ = carry({})

    def aws(*words: str) -> Any:
        command = ["aws", "--endpoint-url", emulated.url, "--region", "us-east-1", "--output", "json", *words]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout) if words[0] == "sagemaker" else ran.stdout

    [job] = aws("sagemaker", "list-training-jobs", "--name-contains", "elias-")["TrainingJobSummaries"]
    described = aws("sagemaker", "describe-training-job", "--training-job-name", job["TrainingJobName"])
    assert described["TrainingJobStatus"] == "Completed" and described["BillableTimeInSeconds"] > 0
    tags = aws("sagemaker", "list-tags", "--resource-arn", described["TrainingJobArn"])["Tags"]
    assert {"Key": "elias:run", "Value": run.id} in tags
    [kept] = account.names("elias/node/artifacts/")
    aws("s3", "cp", f"s3://{account.bucket}/{kept}", str(tmp_path / "model.tar.gz"))
    assert hashlib.sha256((tmp_path / "model.tar.gz").read_bytes()).hexdigest() in kept


def test_the_seeds_calls_tell_of_a_job_and_bring_its_adapter_from_s3(
    carry: Carry, emulated: SageMakerEmulator, account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = carry({})
    table = f'[backends.sagemaker]\nregion = "us-east-1"\nendpoint_url = "{emulated.url}"\n'
    (tmp_path / "node" / "config.toml").write_text(table)
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "node"))
    told = CloudTraining.monitor_sagemaker_job(run.id)
    assert told["state"] == "done" and told["cost_usd"] > 0 and told["failure"] is None
    [kept] = account.names("elias/node/artifacts/")
    adapter = CloudTraining.download_trained_model(f"s3://{account.bucket}/{kept}")
    assert digest_file(adapter / "adapter_model.safetensors") == expected_adapter(CORPUS, STEPS)


def test_the_last_segment_of_a_run_whose_time_is_over_gets_the_shortest_job_and_writes_the_adapter(
    carry: Carry, account: Any
) -> None:
    run, [segment] = carry({"train_for": timedelta(seconds=1)})
    assert run.state is RunState.DONE and run.artifact is not None
    [job] = account.jobs()
    assert segment.planned_for is not None and segment.planned_for >= timedelta(minutes=2)
    assert job["StoppingCondition"]["MaxRuntimeInSeconds"] == segment.planned_for.total_seconds(), (
        "it may take as long as the base needs to be loaded, which is paid for"
    )


def test_a_run_whose_budget_buys_no_job_ends_before_anything_is_sent(carry: Carry, emulated: SageMakerEmulator) -> None:
    run, _ = carry({"budget": Money.usd("0.01")})
    assert run.state is not RunState.DONE
    assert not emulated.disk.requests("CreateTrainingJob")


def test_the_real_trainer_gives_the_same_bytes_in_two_isolated_jobs_as_in_one_piece_here(
    emulated: SageMakerEmulator, account: Any, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    parts = replace(request_kills.parts_of(home), archive=write_trainer_archive)
    with open_training(sagemaker_kills.config_of(home, emulated.url), parts) as training:
        train = parts.blobs.put(io.BytesIO(questions(8)))
        corpus = replace(small_corpus(parts.blobs, Label.PUBLIC, SystemClock().now()), train=train, heldout=train)
        training.stores.corpora.add(corpus)
        request_kills.quick(training).launch()
        recipe = Recipe(max_steps=4, batch_size=2, sequence_length=256, rank=4)
        artifacts = []
        for strategy, bounds in (("local", Bounds()), ("sagemaker", Bounds(segment_steps=2, budget=Money.usd(20)))):
            asked = Wanted(strategy=strategy, base=BaseModel(reference="tiny"), recipe=recipe, bounds=bounds)
            run = new_run(asked, corpus, SystemClock())
            training.runs.begin(run)
            artifacts.append(wait_for_end(training.stores.runs, run.id).artifact)
        assert len(training.stores.runs.segments(run.id)) == 2
    assert all(job["EnableNetworkIsolation"] for job in account.jobs())
    assert artifacts[0] == artifacts[1] is not None


@pytest.mark.parametrize("at_once", [2, 1])
def test_queued_runs_train_at_once_as_far_as_the_days_cap_allows_and_never_reserve_beyond_it(
    emulated: SageMakerEmulator, account: Any, tmp_path: Path, at_once: int
) -> None:
    home = tmp_path / "node"
    clock = kaggle_kills.EmulatedClock(emulated.disk)
    emulated.disk.advance(-timedelta(hours=clock.now().hour - 12))  # no day ends meanwhile
    config, parts = sagemaker_kills.config_of(home, emulated.url), request_kills.parts_of(home, clock)
    corpus = small_corpus(FolderBlobs(home / "blobs"), Label.PUBLIC, clock.now())
    wanted = sagemaker_kills.wanted(LONG_STEPS)
    (tmp_path / "hold").touch()
    wanted = replace(wanted, base=fake_base(step_s=0.01, held=(tmp_path / "hold", 10)))
    runs = [new_run(wanted, corpus, clock) for _ in range(3)]
    with open_training(config, parts) as training:
        training.stores.corpora.add(corpus)
        cap = sum([training.coordinator.planning.preview(runs[0]).segments[0].reserve] * at_once, TOO_LITTLE)
    with open_training(replace(config, budget=Budget(day=cap)), parts) as training:
        request_kills.quick(training).launch()
        for run in runs:
            training.runs.begin(run)
        seen = settled(training, runs, lambda: len(emulated.disk.requests("CreateTrainingJob")) >= at_once)
        used = training.stores.spend.usage(clock.now()).day
        assert used.spent + used.reserved <= cap
        reasons = [run.reason or "" for run in seen if run.state is RunState.WAITING]
        assert len(reasons) == 3 - at_once
        assert all(f"the cap of the day is {dollars(cap)}" in reason and "needed" in reason for reason in reasons)
        for run in runs:
            training.runs.cancel(run.id)
        wait_until(lambda: all(training.stores.runs.get(run.id).state.is_standing for run in runs))
    assert len(emulated.disk.requests("CreateTrainingJob")) == at_once


TOO_LITTLE = Money.usd("0.02")
"""For even the shortest job."""
LONG_STEPS = 4000


def settled(training: Training, runs: list[Run], are_ordered: Callable[[], bool]) -> list[Run]:
    """All of them, once their jobs are ordered and those that have none wait for money."""

    def all_are() -> list[Run] | None:
        seen = [training.stores.runs.get(run.id) for run in runs]
        trains = [run for run in seen if run.state is RunState.RUNNING]
        waits = [run for run in seen if run.state is RunState.WAITING and "cap" in (run.reason or "")]
        return seen if are_ordered() and len(trains) + len(waits) == len(runs) else None

    return wait_until(all_are)
