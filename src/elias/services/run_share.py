"""What a run leaves for the other nodes of its store, so that one of them can carry it on when this one is lost.

Of each segment `in/` once it is laid out and `out/` once it has ended: jobs, results, events, the trainer's program,
the finished adapter, and the newest checkpoint alone. Nothing of a secret run: that never leaves its machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from elias.domain.label import Label
from elias.domain.run import Run, Segment
from elias.ports.stores import FolderStore
from elias.services.next_move import newest_checkpoint
from elias.services.run_folder import CORPUS, RunFolder

CHECKPOINT, LEASE = "checkpoint/", "lease"
NOTHING: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunShare:
    """`folders` is None where this node shares its store with nobody: then all of it is of no effect."""

    folders: FolderStore | None = None

    def keep_inputs(self, run: Run, folder: RunFolder, number: int) -> None:
        if store := self._store_for(run):
            store.keep(_place(run, number, "in"), folder.inputs(number), lambda path: path != LEASE)

    def keep_outputs(self, run: Run, folder: RunFolder, segments: Sequence[Segment]) -> None:
        """Of the last of `segments`; what an older checkpoint took is given back."""
        store = self._store_for(run)
        if store is None or not folder.outputs(segments[-1].number).is_dir():
            return
        store.keep(_place(run, segments[-1].number, "out"), folder.outputs(segments[-1].number))
        newest = newest_checkpoint(segments)
        for segment in segments[:-1]:
            store.forget(_place(run, segment.number, "in"), CHECKPOINT)
            if newest and segment.end != newest:
                store.forget(_place(run, segment.number, "out"), CHECKPOINT)

    def bring(self, run: Run, folder: RunFolder, segments: Sequence[Segment]) -> None:
        """Here what another node has left, and what this one has lost; quick when nothing is missing."""
        store, newest = self._store_for(run), newest_checkpoint(segments)
        if store is None:
            return
        for segment in segments:
            over = (CORPUS, CHECKPOINT) if segment.state.is_final else NOTHING
            old = (CHECKPOINT,) if segment.state.is_final and segment.end != newest else NOTHING
            store.bring(_place(run, segment.number, "in"), folder.inputs(segment.number), _all_but(over))
            store.bring(_place(run, segment.number, "out"), folder.outputs(segment.number), _all_but(old))

    def forget_checkpoints(self, run: Run, segments: Sequence[Segment]) -> None:
        """All of them, in the store."""
        if self.folders is None:
            return
        for segment in segments:
            for side in ("in", "out"):
                self.folders.forget(_place(run, segment.number, side), CHECKPOINT)

    def _store_for(self, run: Run) -> FolderStore | None:
        return None if run.label is Label.SECRET else self.folders


ALONE = RunShare()
"""With nobody."""


def _all_but(beginnings: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda path: not path.startswith(beginnings)


def _place(run: Run, number: int, side: str) -> str:
    return f"runs/{run.id}/{number:04d}/{side}"
