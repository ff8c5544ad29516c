"""What moves between S3 and a job's /opt/ml: channels in, checkpoints both ways, model and output out."""

from __future__ import annotations

import json
import shutil
import tarfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from boto3.s3.transfer import TransferConfig

from elias.testing.emulated import Json

PLAIN = TransferConfig(use_threads=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    name: str
    uri: str
    is_manifest: bool

    @classmethod
    def of(cls, raw: Json) -> Self:
        """From an entry of `InputDataConfig`."""
        source = raw["DataSource"]["S3DataSource"]
        return cls(name=raw["ChannelName"], uri=source["S3Uri"], is_manifest=source["S3DataType"] == "ManifestFile")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An object, and where it goes below its channel."""

    bucket: str
    key: str
    place: str


class Stage:
    """Speaks S3 for the jobs of one region; raises botocore's ClientError."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    def objects(self, channel: Channel) -> list[Found]:
        bucket, prefix = bucket_and_key(channel.uri)
        if not channel.is_manifest:
            return self._below(bucket, prefix)
        first, *names = json.loads(self._s3.get_object(Bucket=bucket, Key=prefix)["Body"].read())
        bucket, prefix = bucket_and_key(first["prefix"])
        return [Found(bucket=bucket, key=f"{prefix}{name}", place=name) for name in names]

    def download(self, found: list[Found], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for item in found:
            target = (folder / item.place).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise OSError(f"the key {item.key} leads out of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            self._s3.download_file(item.bucket, item.key, str(target), Config=PLAIN)

    def restore(self, uri: str, folder: Path) -> None:
        """The checkpoints that lie in S3; nothing where there are none."""
        bucket, prefix = bucket_and_key(uri)
        self.download(self._below(bucket, prefix.rstrip("/") + "/" if prefix else ""), folder)

    def upload(self, source: Path, uri: str, kms_key: str | None) -> None:
        bucket, key = bucket_and_key(uri)
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        self._s3.upload_file(str(source), bucket, key, ExtraArgs=extra, Config=PLAIN)

    def upload_folder(self, source: Path, uri: str, kms_key: str | None) -> None:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                self.upload(path, f"{uri.rstrip('/')}/{path.relative_to(source).as_posix()}", kms_key)

    def _below(self, bucket: str, prefix: str) -> list[Found]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return [Found(bucket=bucket, key=key, place=_place(key, prefix)) for key in keys if not key.endswith("/")]


class CheckpointSync:
    """Copies what is new or changed below a folder to S3; what is deleted locally stays in S3, as on AWS."""

    def __init__(self, stage: Stage, folder: Path, uri: str, kms_key: str | None) -> None:
        self._stage = stage
        self._folder = folder
        self._uri = uri.rstrip("/")
        self._kms_key = kms_key
        self._sent = self._state()

    def push(self) -> None:
        for path, state in self._state().items():
            if self._sent.get(path) == state:
                continue
            copy = self._folder.with_name(f"{self._folder.name}.outgoing")
            try:
                shutil.copyfile(path, copy)  # a file that changes or goes while it is sent must not fail the sync
            except FileNotFoundError:
                continue
            self._stage.upload(copy, f"{self._uri}/{path.relative_to(self._folder).as_posix()}", self._kms_key)
            self._sent[path] = state

    def _state(self) -> dict[Path, tuple[int, int, int]]:
        known = {}
        for path in sorted(self._folder.rglob("*")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                known[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        return known


def pack(folder: Path, target: Path) -> Path:
    """A .tar.gz with the folder's content at its root."""
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return target


def bucket_and_key(uri: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(uri, allow_fragments=False)
    return parts.netloc, parts.path.lstrip("/")


def _place(key: str, prefix: str) -> str:
    """Below the prefix's folder; a key that is the prefix itself keeps its last name."""
    folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    if key.startswith(folder):
        return key.removeprefix(folder)
    return key.removeprefix(prefix.rpartition("/")[0]).lstrip("/")
