"""The fake trainer itself: `python -I trainer.pyz train --job in/job.json --out out/ [--cache DIR]`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import struct
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elias_trainer import contract as c
from elias_trainer.folders import drop_folder

DEFAULT_STEPS = 20
HELD_LOOK_S = 0.01


def main() -> int:
    if sys.argv[1:2] == ["carry"]:
        from elias_trainer.carry import main as carry

        return carry(sys.argv[2:])
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["train"])
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    job = c.from_json(c.Job, given.job.read_bytes())
    given.out.mkdir(parents=True, exist_ok=True)
    return FakeTraining(job, given.job.parent, given.out).run()


def next_digest(digests: list[str], step: int, seed: int, corpus: c.Digest) -> str:
    """What a step adds to the model: it follows from the step before."""
    before = digests[-1] if digests else corpus.hex
    return c.digest_bytes(f"{before} {step} {seed} {corpus}".encode()).hex


def adapter_bytes(digests: list[str]) -> bytes:
    return _safetensors("base_model.fake", _model(digests))


def behaviour(reference: str) -> dict[str, str]:
    """From `fake:step_s=0.01,fail=user@5`."""
    words = reference.partition(":")[2]
    return dict(word.split("=", 1) for word in words.split(",") if word)


@dataclass
class FakeTraining:
    job: c.Job
    inputs: Path
    out: Path
    began: float = field(default_factory=time.monotonic)
    digests: list[str] = field(default_factory=list)
    """One a step done: together the model."""
    start: int = 0
    seq: int = 0
    asked_to_stop: bool = False
    last: c.CheckpointRef | None = None
    saved_at: float = 0.0

    @property
    def step(self) -> int:
        return len(self.digests)

    @property
    def total(self) -> int:
        recipe = self.job.recipe
        return recipe.max_steps or max(1, round(DEFAULT_STEPS * recipe.epochs))

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self.stop_soon)
        if (self.out / "events.jsonl").exists():  # of an earlier start in this folder: `seq` goes on
            self.seq = len((self.out / "events.jsonl").read_bytes().splitlines())
        if broken := self.broken_input():
            fix = "send the segment again with whole files"
            self.end(c.Outcome.FAILED, broken, c.Failure(kind=c.FailureKind.VERIFICATION, message=broken, fix=fix))
            return 1
        self.event(c.EventKind.STARTED, **_machine(), precision="fp32", expected_accelerator=None, matches=True)
        self.load()
        self.saved_at = time.monotonic()
        return self.train()

    def stop_soon(self, *_: Any) -> None:
        self.asked_to_stop = True

    def broken_input(self) -> str | None:
        """Which input is not what its digest says."""
        job = self.job
        found = {job.corpus.path: (job.corpus.digest, c.digest_file(self.inputs / job.corpus.path))}
        if job.checkpoint:
            folder = self.inputs / job.checkpoint.path
            found[job.checkpoint.path] = (job.checkpoint.digest, c.tree_digest(folder))
        if job.trainer:
            archive = Path(sys.argv[0])
            found[archive.name] = (job.trainer, c.digest_file(archive))
        return next((f"{name} is not what its digest says" for name, (a, b) in found.items() if a != b), None)

    def load(self) -> None:
        if self.job.checkpoint:
            state = self.inputs / self.job.checkpoint.path / "state.json"
            self.digests = json.loads(state.read_bytes())["digests"]
            self.start = self.step
        self.event(c.EventKind.LOADED, phase="corpus", seconds=0.0, examples=1, tokens=1, step_total=self.total)

    def train(self) -> int:
        plan = behaviour(self.job.base.reference)
        while self.step < self.total:
            reason = self.why_stop()
            if reason == "deadline" and self.job.limits.at_deadline is c.AtDeadline.FINISH:
                break
            if reason:
                self.checkpoint()
                self.end(c.Outcome.PAUSED, reason)
                return 0
            if self.is_held(plan.get("held", "")):
                time.sleep(HELD_LOOK_S)
                continue
            if plan.get("die_at") == str(self.step + 1):
                os._exit(137)
            if plan.get("fail", "").endswith(f"@{self.step + 1}"):
                kind = c.FailureKind(plan["fail"].partition("@")[0])
                message = f"told to fail at step {self.step + 1}"
                self.end(c.Outcome.FAILED, message, c.Failure(kind=kind, message=message, fix="tell it not to"))
                return 1
            self.one_step(float(plan.get("step_s", "0.01")))
        self.finish("steps" if self.step == self.total else "deadline")
        return 0

    def why_stop(self) -> str | None:
        limits, lease = self.job.limits, self.job.lease
        if self.asked_to_stop:
            return "signal"
        if limits.stop_at_step is not None and self.step >= limits.stop_at_step:
            return "stop_at_step"
        if limits.seconds is not None and time.monotonic() - self.began >= limits.seconds:
            return "deadline"
        if lease and time.time() - (self.inputs / lease.path).stat().st_mtime > lease.seconds:
            return "lease"
        return None

    def is_held(self, held: str) -> bool:
        """`held` is a file and a number of steps: no more are done while that file is there."""
        file, _, steps = held.rpartition("@")
        return bool(file) and self.step >= int(steps) and Path(file).exists()

    def one_step(self, seconds: float) -> None:
        time.sleep(seconds)
        self.digests.append(next_digest(self.digests, self.step + 1, self.job.recipe.seed, self.job.corpus.digest))
        self.event(
            c.EventKind.STEP,
            step=self.step,
            step_total=self.total,
            epoch=self.step / self.total,
            loss=2.0 / (1 + self.step),
            learning_rate=self.job.recipe.learning_rate,
            tokens=self.step,
            tokens_per_s=1 / max(seconds, 1e-6),
            memory_bytes=0,
            eta_s=(self.total - self.step) * seconds,
        )
        if time.monotonic() - self.saved_at >= self.job.limits.checkpoint_every_s:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Whole or absent: written beside, then renamed."""
        self.saved_at = time.monotonic()
        path = f"checkpoint/step-{self.step:08d}"
        folder, scratch = self.out / path, self.out / f"checkpoint/.step-{self.step:08d}.part"
        if not folder.exists():
            shutil.rmtree(scratch, ignore_errors=True)
            c.write_whole(scratch / "state.safetensors", _safetensors("state", _model(self.digests)))
            c.write_whole(scratch / "state.json", c.canonical_json({"digests": self.digests}))
            c.write_whole(scratch / "manifest.json", c.canonical_json({"files": c.file_digests(scratch)}))
            scratch.rename(folder)
            c.sync_folder(folder.parent)
        self.last = c.CheckpointRef(step=self.step, path=path, digest=c.tree_digest(folder))
        self.event(c.EventKind.CHECKPOINT, step=self.step, path=path, digest=self.last.digest, seconds=0.0)
        for old in sorted(folder.parent.glob("step-*"))[: -self.job.limits.keep_checkpoints]:
            drop_folder(old)

    def finish(self, reason: str) -> None:
        self.checkpoint()
        adapter = self.out / "adapter"
        c.write_whole(adapter / "adapter_model.safetensors", adapter_bytes(self.digests))
        c.write_whole(adapter / "adapter_config.json", c.canonical_json({"peft_type": "LORA", "r": 1}))
        self.end(c.Outcome.DONE, reason)

    def end(self, outcome: c.Outcome, reason: str, failure: c.Failure | None = None) -> None:
        self.event(c.EventKind.ENDED, outcome=outcome, reason=reason, step=self.step)
        adapter, newest = self.out / "adapter", self.out / self.last.path if self.last else None
        kept = [folder for folder in (adapter, newest) if folder and folder.exists()]
        outputs = {
            f"{folder.relative_to(self.out).as_posix()}/{name}": digest
            for folder in kept
            for name, digest in c.file_digests(folder).items()
        }
        done = self.step - self.start
        result = c.Result(
            run=self.job.run,
            segment=self.job.segment,
            outcome=outcome,
            reason=reason,
            step=self.step,
            step_total=self.total,
            started_at_step=self.start,
            tokens=done,
            first_loss=2.0 / (2 + self.start) if done else None,
            last_loss=2.0 / (1 + self.step) if done else None,
            precision="fp32",
            base_digest=c.digest_bytes(b"fake"),
            seconds={"total": time.monotonic() - self.began},
            outputs=outputs,
            checkpoint=self.last,
            failure=failure,
            **_machine(),
        )
        c.write_whole(self.out / "result.json", c.to_json(result))

    def event(self, kind: c.EventKind, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = json.dumps({"kind": kind, "at": at, "seq": self.seq, **fields}, sort_keys=True)
        self.seq += 1
        with (self.out / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        print(c.EVENT_PREFIX + line, flush=True)


def _model(digests: list[str]) -> bytes:
    return b"".join(bytes.fromhex(digest) for digest in digests)


def _machine() -> dict[str, Any]:
    return {"accelerator": "cpu", "accelerator_count": 1, "versions": {"python": sys.version.split()[0]}}


def _safetensors(name: str, data: bytes) -> bytes:
    """One tensor of bytes; https://github.com/huggingface/safetensors#format."""
    header = c.canonical_json({name: {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}})
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


if __name__ == "__main__":
    sys.exit(main())
