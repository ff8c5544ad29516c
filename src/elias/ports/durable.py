"""A durable engine: carries a workflow on from its last finished step after any crash."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable


class Steps(Protocol):
    """What a workflow may use. Between two calls it must be deterministic."""

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it once: when it finished before, its answer comes from the store. Arguments and answer are JSON."""
        ...

    def sleep(self, span: timedelta) -> None:
        """Durable: what has passed before a crash has passed."""
        ...


Workflow = Callable[[Steps, str], None]
"""Called with the key that it was started under."""


class DurableEngine(Protocol):
    def register(self, name: str, workflow: Workflow) -> None:
        """Before `launch`. Code that can no longer carry on old work gets a new name."""
        ...

    def launch(self) -> None:
        """Take the lock, recover what was under way, begin to work.

        Raises Refused when another process is this engine.
        """
        ...

    def start(self, name: str, key: str) -> None:
        """Put it in the queue. Of no effect when `key` is there and not ended; from any process, launched or not."""
        ...

    def restart(self, name: str, key: str, wait: timedelta = timedelta(0)) -> None:
        """Put a key whose workflow has ended in the queue once more; what it did stays done in the stores.

        Of no effect on one that has not ended within `wait`: what has said its last word to the stores is known here
        as ended a moment later.
        """
        ...

    def stop(self) -> None:
        """Let go of the lock; work goes on at the next launch."""
        ...


@runtime_checkable
class CanAdopt(Protocol):
    def adopt(self, key: str) -> None:
        """Carry on here what another node has begun and will not end; the files it needs must be here too.

        Raises NotFound, or Refused while that node lives. Of no effect on what has ended or waits for any node.
        """
        ...
