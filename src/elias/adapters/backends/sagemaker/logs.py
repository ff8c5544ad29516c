"""A job's lines in CloudWatch Logs, read as they come: one stream a container, so a restarted job has several."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from elias.adapters.backends.printed import json_after
from elias.adapters.backends.sagemaker.client import Clients, aws_errors
from elias.errors import NotFound
from elias_trainer.contract import EVENT_PREFIX

GROUP = "/aws/sagemaker/TrainingJobs"
MOST_PAGES = 20
"""Of one stream in one look; the next look goes on."""


class JobLog:
    def __init__(self, clients: Clients, job: str, every_s: float) -> None:
        """Asks AWS no more often than `every_s`."""
        self._clients = clients
        self._job = job
        self._every_s = every_s
        self._lock = threading.Lock()
        self._lines: dict[str, list[str]] = {}
        self._tokens: dict[str, str] = {}
        self._asked: float | None = None

    def lines(self) -> list[str]:
        """Those known by now, container by container. Raises LoggedOut, ConfigError, BackendError."""
        with self._lock:
            now = time.monotonic()
            if self._asked is None or now - self._asked >= self._every_s:
                self._asked = now
                self._read()
        return self.known()

    def known(self) -> list[str]:
        """Those read so far; asks nobody."""
        with self._lock:
            return [line for stream in self._lines.values() for line in stream]

    def _read(self) -> None:
        logs = self._clients.get("logs")
        try:
            with aws_errors(f"reading the log of {self._job}"):
                found = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{self._job}/")
                for stream in sorted(entry["logStreamName"] for entry in found["logStreams"]):
                    self._read_stream(logs, stream)
        except NotFound:
            return  # no container has said anything yet

    def _read_stream(self, logs: Any, stream: str) -> None:
        lines = self._lines.setdefault(stream, [])
        for _ in range(MOST_PAGES):
            token = self._tokens.get(stream)
            page = logs.get_log_events(
                logGroupName=GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            lines += [str(event["message"]) for event in page["events"]]
            if page["events"]:  # the token of an empty stream does not count what comes first
                self._tokens[stream] = page["nextForwardToken"]
            if not page["events"] or page["nextForwardToken"] == token:
                return


def events_in(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The trainer's events, each once and in order."""
    last = -1
    for line in lines:
        event = json_after(EVENT_PREFIX, line)
        if event is not None and int(event.get("seq", -1)) > last:
            last = int(event["seq"])
            yield event
