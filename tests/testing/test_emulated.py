"""What the emulators share."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from elias.testing import kaggle_emulator, sagemaker_emulator


@pytest.mark.parametrize("emulator", [kaggle_emulator, sagemaker_emulator])
def test_faults_that_several_processes_add_while_others_are_taken_are_not_lost(emulator, tmp_path: Path) -> None:
    root, fault = tmp_path / "state", partial(emulator.Fault, kind=emulator.FaultKind.LOST_ANSWER)
    taken = []

    def add(name: str) -> None:
        for _ in range(20):
            emulator.Disk(root).faults.add(fault(call=name))
            taken.append(emulator.Disk(root).faults.take(name))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, "abcd"))
    assert None not in taken and len(taken) == 80
    assert emulator.Disk(root).faults.pending() == []


def test_what_was_asked_is_told_in_whole_lines_while_the_next_is_being_written(tmp_path: Path) -> None:
    disk = kaggle_emulator.Disk(tmp_path)
    disk.record("SaveKernel", {"slug": "ada/one"})
    with (tmp_path / "requests.jsonl").open("a") as stream:
        stream.write('{"call": "SaveKernel", "body": {"te')
    assert [asked["body"]["slug"] for asked in disk.requests("SaveKernel")] == ["ada/one"]


def test_an_order_that_is_given_while_another_is_looked_for_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, exists, unlink = sagemaker_emulator.Disk(tmp_path), Path.exists, Path.unlink

    def and_then_given(look, path: Path, **given):
        """As a thread that is given its turn right after the look."""
        try:
            return look(path, **given)
        finally:
            monkeypatch.undo()
            disk.order(tmp_path / "job", "stop")

    monkeypatch.setattr(Path, "exists", lambda path: and_then_given(exists, path))
    monkeypatch.setattr(Path, "unlink", lambda path, **given: and_then_given(unlink, path, **given))
    assert not disk.take_order(tmp_path / "job", "stop")
    assert disk.take_order(tmp_path / "job", "stop")
