"""One training job twice, through the real commands: left alone, and killed with -9 three times and resumed.

    python bench/three_kills.py                    on `tiny`
    python bench/three_kills.py --base starter     on SmolLM2-135M

The first kill hits the trainer, the second the coordinator, the third both; each at a step that the trainer has just
reported, with steps still to go. Prints both artifact digests; exits 1 unless they are one, or when anything is left
running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shell import Shell, some_code, until

VICTIMS = ("trainer", "coordinator", "both")


@dataclass(frozen=True, kw_only=True)
class Work:
    steps: int
    kill_at: tuple[int, int, int]
    checkpoint_minutes: float
    sequence_length: int

    def words(self, base: str, data: Path) -> list[str]:
        words = f"train --strategy local --data {data} --base {base} --steps {self.steps} --rank 4 --batch-size 2 "
        words += f"--sequence-length {self.sequence_length} --checkpoint-minutes {self.checkpoint_minutes} --yes"
        return words.split()


TINY = Work(steps=240, kill_at=(35, 70, 105), checkpoint_minutes=0.015, sequence_length=192)
WORK = {"tiny": TINY, "starter": Work(steps=24, kill_at=(5, 11, 17), checkpoint_minutes=0.05, sequence_length=192)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", choices=sorted(WORK), default="tiny")
    base = parser.parse_args().base
    folder = Path(tempfile.mkdtemp(prefix="elias-three-kills-"))
    report = compare(folder, base, WORK[base])
    print(json.dumps({"bench": "three_kills", "base": base, **report}))
    if report["wrong"]:
        print(f"kept for a look: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def compare(folder: Path, base: str, work: Work) -> dict[str, Any]:
    began = time.monotonic()
    data = some_code(folder / "session.py")
    alone, killed = Shell(home=folder / "alone"), Shell(home=folder / "killed")
    for shell in (alone, killed):
        shell.answer("init")
    whole = alone.answer(*work.words(base, data))
    try:
        resumed, kills = kill_and_resume(killed, work.words(base, data), work.kill_at)
    finally:
        killed.kill_all()
    wrong = [f"left running: {line}" for line in [*alone.left_running(), *kills.pop("left_running")]]
    if resumed["artifact"] != whole["artifact"]:
        wrong.append("the artifacts differ")
    if resumed["corpus"] != whole["corpus"]:
        wrong.append("the corpora differ")
    wrong += broken_chain(resumed["segments"])
    return {
        "alone": whole["artifact"],
        "killed": resumed["artifact"],
        "steps": work.steps,
        "checkpoint_minutes": work.checkpoint_minutes,
        **kills,
        "segments": [f"{s['state']} at {s['end']['step'] if s['end'] else None}" for s in resumed["segments"]],
        "wrong": wrong,
        "seconds": round(time.monotonic() - began, 1),
    }


def kill_and_resume(shell: Shell, words: list[str], kill_at: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The finished run as JSON, and what each kill met."""
    kills = []
    child = shell.start(*words, "--json")
    for victim, at_step in zip(VICTIMS, kill_at, strict=True):
        step, checkpoint = reach(shell, at_step, child)
        segment, trainer = under_way(shell)
        if victim != "trainer":
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
        if victim != "coordinator":
            os.kill(trainer, signal.SIGKILL)
        is_mid_run = not (segment / "out" / "result.json").exists()
        kills.append({"victim": victim, "at_step": step, "checkpoint": checkpoint, "landed": is_mid_run})
        if victim != "trainer":
            child = shell.start("run", "resume", "latest", "--json")
    out, err = child.communicate(timeout=600)
    if child.returncode != 0:
        raise RuntimeError(f"the resumed run left with {child.returncode}: {err[-1500:]}")
    return json.loads(out), {"kills": kills, "left_running": shell.left_running()}


def reach(shell: Shell, step: int, child: subprocess.Popen[str]) -> tuple[int, int]:
    """Wait until the segment under way has done `step`, a checkpoint of its own behind it: its step, that one's."""

    def is_there() -> bool:
        if child.poll() is not None:
            raise RuntimeError(f"the run ended before step {step}: {child.communicate()[1][-1500:]}")
        now, saved = progress(shell)
        return now >= step and 0 < saved <= now

    until(is_there, f"step {step}", within_s=300)
    return progress(shell)


def under_way(shell: Shell) -> tuple[Path, int]:
    """The newest segment's folder and its trainer."""
    segment = max((shell.home / "backends" / "local" / "segments").iterdir())
    return segment, int(json.loads((segment / "who.json").read_bytes())["pid"])


def progress(shell: Shell) -> tuple[int, int]:
    """The newest step and the newest checkpoint of the segment under way; 0 where there is none yet."""
    segments = shell.home / "backends" / "local" / "segments"
    newest = max(segments.iterdir(), default=None) if segments.exists() else None
    path = newest / "out" / "events.jsonl" if newest else None
    lines = path.read_bytes().splitlines(keepends=True) if path and path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith(b"\n")]
    found = {kind: max((e["step"] for e in events if e["kind"] == kind), default=0) for kind in ("step", "checkpoint")}
    return found["step"], found["checkpoint"]


def broken_chain(segments: list[dict[str, Any]]) -> list[str]:
    """Each segment starts from the newest checkpoint before it."""
    wrong, reached = [], 0
    for segment in segments:
        start = segment["start"]["step"] if segment["start"] else 0
        if start != reached:
            wrong.append(f"segment {segment['number']} starts at {start}, the newest checkpoint is at {reached}")
        reached = max(reached, segment["end"]["step"] if segment["end"] else 0)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
