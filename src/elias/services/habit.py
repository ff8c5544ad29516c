"""When this machine is usually held, as the node has seen it: in a file, so that a plan in any process knows it."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

from elias.domain.habit import CELLS, Habit
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.habit")
HABIT_FILE = "habit.json"
WRITE_EVERY = timedelta(minutes=10)
"""What was seen since is lost with the process."""
BLINK = timedelta(minutes=1)
"""Between two looks; over a longer time, as of a laptop that slept, nothing was seen."""


class HabitBook:
    """Fed by one thread of the node's process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._habit = read_habit(file) or Habit()
        self._is_held = False
        self._since: datetime | None = None
        self._looked: datetime | None = None

    def saw(self, now: datetime, is_held: bool) -> None:
        """Free time is noted as it passes, a spell once it is over: its length so far must not foretell its own end."""
        if self._looked is None or not timedelta(0) <= now - self._looked <= BLINK:
            self._since, self._is_held = now, is_held
        elif is_held != self._is_held or (not is_held and self._since and now - self._since >= WRITE_EVERY):
            self._note(now)
            self._is_held = is_held
        self._looked = now

    def _note(self, now: datetime) -> None:
        if self._since is not None:
            self._habit = self._habit.after(self._since, now, taken=self._is_held)
            self._since = now
            self._write()

    def _write(self) -> None:
        """Whoever looks has to make way for inference: a full disk does not keep it from that."""
        fields = {"seen": self._habit.seen, "taken": self._habit.taken}
        plain = {name: [round(value, 4) for value in of] for name, of in fields.items()}
        try:
            write_whole(self._file, json.dumps(plain).encode())
        except OSError as error:
            log.warning("habit.unwritten file=%s: %s; it is written with what is seen next", self._file, error)


def read_habit(file: Path) -> Habit | None:
    """None where nothing was seen yet, and, said in the log, where the file cannot be read."""
    try:
        fields = json.loads(file.read_bytes())
        seen, taken = (tuple(map(float, fields[name])) for name in ("seen", "taken"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("habit.unreadable file=%s: %s; it is learned anew", file, error)
        return None
    if (len(seen), len(taken)) != (CELLS, CELLS):
        log.warning("habit.unreadable file=%s: not %d hours; it is learned anew", file, CELLS)
        return None
    return Habit(seen=seen, taken=taken)
