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
