"""A trainer's `out/` folder as it lies on a disk: what is whole in it, and how to bring that home."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elias.errors import BackendError
from elias_trainer.contract import Result, from_json, sync_folder, write_whole

_TRIES = 5


def read_result(out: Path) -> Result | None:
    """None while there is none, or when it is not one."""
    try:
        return from_json(Result, (out / "result.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def checkpoints(out: Path) -> list[Path]:
    """Whole ones, newest first: a trainer renames a checkpoint into place when all of it is on the disk."""
    folder = out / "checkpoint"
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True) if folder.is_dir() else []


def read_events(out: Path, offset: int = 0) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each whole line from byte `offset` on, with the offset that follows it."""
    path = out / "events.jsonl"
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line torn by a crash; the trainer numbers its events, so the gap shows
            yield offset, event


def read_json(path: Path) -> dict[str, Any] | None:
    """None while the file is not there; it is always whole."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def events_so_far(folder: Path, after: int) -> Iterator[Mapping[str, Any]]:
    """Of a segment carried out elsewhere: those of a higher `seq` that came by the last look, or home at its end."""
    place = "out" if (folder / "ended.json").exists() else "live"
    yield from (event for _, event in read_events(folder / place) if int(event["seq"]) > after)


def disk_error(error: OSError) -> BackendError:
    """Of what a place keeps here."""
    return BackendError(f"this machine's disk: {error}", fix="free some space, then: elias run resume")


def keep_all_events(folder: Path) -> None:
    """`live/` ones where they are more: a trainer that was killed had no time to put its last ones out."""
    live, shipped = folder / "live" / "events.jsonl", folder / "out" / "events.jsonl"
    if live.exists() and (not shipped.exists() or live.stat().st_size > shipped.stat().st_size):
        write_whole(shipped, live.read_bytes())


def bring_home(out: Path, into: Path) -> None:
    """Copy what is whole; linked where both are on one disk, for a checkpoint is large and never written again."""
    into.mkdir(parents=True, exist_ok=True)
    if (out / "events.jsonl").exists():
        data = (out / "events.jsonl").read_bytes()
        write_whole(into / "events.jsonl", data[: data.rfind(b"\n") + 1])
    _bring_newest_checkpoint(out, into)
    if (result := out / "result.json").exists():
        if (out / "adapter").is_dir():
            _bring_folder(out / "adapter", into / "adapter")
        write_whole(into / "result.json", result.read_bytes())


def _bring_newest_checkpoint(out: Path, into: Path) -> None:
    for _ in range(_TRIES):
        newest = next(iter(checkpoints(out)), None)
        if newest is None:
            return
        try:
            _bring_folder(newest, into / "checkpoint" / newest.name)
        except FileNotFoundError:
            continue  # rotated away meanwhile: there is a newer one
        for old in checkpoints(into):
            if old.name != newest.name:
                shutil.rmtree(old)
        return


def _bring_folder(source: Path, target: Path) -> None:
    if target.exists():
        return
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, copy_function=link_or_copy)
    try:
        scratch.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(scratch)  # someone else brought it first
    sync_folder(target.parent)


def link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
