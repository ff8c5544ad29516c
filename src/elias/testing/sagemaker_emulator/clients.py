"""The emulator's own clients to moto: its jobs stage, log and look roles up through the same door as everyone."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config

from elias.testing.sagemaker_emulator.staging import Stage

OWN_KEY = "EMULATEDSERVICE"
"""Calls with this access key meet no faults and are not recorded."""
ROLE_KEY = "EMULATEDROLE"
"""What a job's container signs with."""


class Clients:
    """Made once a region and service, on first use: a client costs a third of a second."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}

    def iam(self, region: str) -> Any:
        return self._client("iam", region)

    def logs(self, region: str) -> Any:
        return self._client("logs", region)

    def stage(self, region: str) -> Stage:
        return Stage(self._client("s3", region))

    def close(self) -> None:
        for client in self._made.values():
            client.close()

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            if (service, region) not in self._made:
                self._made[service, region] = boto3.session.Session().client(
                    service,
                    region_name=region,
                    endpoint_url=self.url,
                    aws_access_key_id=OWN_KEY,
                    aws_secret_access_key="emulated",
                    config=Config(proxies={}, max_pool_connections=32),
                )
            return self._made[service, region]
