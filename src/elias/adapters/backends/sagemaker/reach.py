"""Whether AWS answers at all: asked before an offer is made of what is known by heart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from elias.adapters.backends.sagemaker.client import LoggedOut, OutOfReach, aws_errors
from elias.errors import EliasError
from elias.units import Clock

log = logging.getLogger("elias.sagemaker")
KNOWN_FOR = timedelta(minutes=1)
FAILED_FOR = timedelta(seconds=10)
"""An answer that did not come may have taken a minute: it is not waited for twice in a row."""


class Reach:
    """Safe from several threads: the worst is that it is asked twice."""

    def __init__(self, client: Callable[[], Any], clock: Clock) -> None:
        """`client` makes a boto3 client of SageMaker."""
        self._client = client
        self._clock = clock
        self._asked: tuple[datetime, OutOfReach | None] | None = None

    def check(self) -> None:
        """Of no effect where it answered within a minute, if only to say no. Raises OutOfReach, LoggedOut."""
        now = self._clock.now()
        if self._asked is not None:
            at, failed = self._asked
            if now - at < (FAILED_FOR if failed else KNOWN_FOR):
                if failed:
                    raise OutOfReach(failed.what, fix=failed.fix)
                return
        self._asked = now, self._ask()
        if self._asked[1] is not None:
            raise self._asked[1]

    def _ask(self) -> OutOfReach | None:
        try:
            with aws_errors("asking SageMaker whether it is there"):
                self._client().list_training_jobs(MaxResults=1)
        except LoggedOut:
            raise
        except OutOfReach as error:
            return error
        except EliasError as error:  # it is there, and says no to this: what is really asked of it says what is wrong
            log.info("sagemaker.answers what=%s", error.what)
        return None
