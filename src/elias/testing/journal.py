"""Steps that remember their answers, without a database: to cut a workflow off anywhere and call it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any


class CutOff(BaseException):
    """The process that carried the workflow is gone. Not an Exception: nothing handles it."""


class JournalSteps:
    """`cut_after` steps that were done in this life and before their answer was kept, or right after it was."""

    def __init__(self, journal: list[tuple[str, str]]) -> None:
        self.journal = journal
        """(name, answer as JSON) of each step that finished, in order; outlives this object."""
        self.position = 0
        self.cut_after: int | None = None
        self.cut_before_it_is_kept = False

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.position < len(self.journal):
            kept_name, answer = self.journal[self.position]
            assert kept_name == name, f"not deterministic: step {self.position} was {kept_name}, now {name}"
            self.position += 1
            return json.loads(answer)
        answer = json.dumps(function(*json.loads(json.dumps(arguments))))
        if self.cut_after == 0 and self.cut_before_it_is_kept:
            raise CutOff
        self.journal.append((name, answer))
        self.position += 1
        if self.cut_after == 0:
            raise CutOff
        if self.cut_after is not None:
            self.cut_after -= 1
        return json.loads(answer)

    def sleep(self, span: timedelta) -> None:
        self.step("sleep", lambda: None)
