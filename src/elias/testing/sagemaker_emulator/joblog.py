"""A job's lines on their way to CloudWatch Logs, and the metrics that stand in them."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

from elias.testing.emulated import Json

GROUP = "/aws/sagemaker/TrainingJobs"


class JobLog:
    """One stream a container. Its times are the machine's own, whatever the emulator's clock says."""

    def __init__(self, logs: Any, request: Json) -> None:
        self._logs = logs
        self._stream = f"{request['TrainingJobName']}/algo-1-{time.time_ns() // 1_000_000}"
        definitions = request["AlgorithmSpecification"].get("MetricDefinitions") or []
        self._metrics = [(entry["Name"], re.compile(entry["Regex"])) for entry in definitions]
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):  # by an earlier job
            logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName=self._stream)

    def put(self, lines: list[str]) -> dict[str, float]:
        """The metrics found in these lines, the last value of each."""
        if not lines:
            return {}
        now = time.time_ns() // 1_000_000
        events = [{"timestamp": now, "message": line or " "} for line in lines]
        self._logs.put_log_events(logGroupName=GROUP, logStreamName=self._stream, logEvents=events)
        return {
            name: float(found.group(1))
            for line in lines
            for name, regex in self._metrics
            if (found := regex.search(line))
        }
