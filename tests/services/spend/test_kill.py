"""kill -9 between any two steps of reserve, submit, collect and settle: nothing is paid twice, and all is accounted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from elias.domain.run import RunState
from elias.units import FREE, Money

PROGRAM = Path(__file__).with_name("paying.py")
MOST_LIVES = 40


def test_a_process_killed_at_every_boundary_pays_once_and_the_journal_balances(world):
    run = world.run(budget="5")
    killed = 0
    for _ in range(MOST_LIVES):
        child = subprocess.run([sys.executable, str(PROGRAM), str(world.home), run.id], check=False)
        world.check_books()
        assert world.spent(run) + world.held(run) <= Money.usd(5)
        if child.returncode != -signal.SIGKILL:
            assert child.returncode == 0
            break
        killed += 1
    moments = (world.home / "died_at.txt").read_text().splitlines()
    assert killed == len(moments) == len(set(moments))
    steps = ("reserve", "put_segment pending planned", "put_segment pending sent", "submit", "fetch", "settle")
    expected = [f"before {step}" for step in steps] + ["after reserve", "after submit", "after settle"]
    assert [moment for moment in expected if not any(died.startswith(moment) for died in moments)] == []
    assert world.stores.runs.get(run.id).state is RunState.DONE
    [segment] = world.segments(run)
    assert world.place.begun() == [segment.key]
    assert (world.spent(run), world.held(run)) == (world.place.cost, FREE)
