"""Files in S3: sent in parts that a cut does not lose, checksummed by S3 itself, and fetched within bounds.

A large file goes up as a multipart upload whose id and finished parts are kept on this machine, so that the next try
sends only what is missing. S3 compares each part's CRC-32 with its own and refuses a difference.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from elias.adapters.backends.sagemaker.client import Clients, aws_errors
from elias.errors import BackendError, DigestMismatch, DiskFull, EliasError, NotFound
from elias_trainer.contract import Digest, canonical_json, digest_file, sync_folder, write_whole

PART_BYTES = 16 * 2**20
MOST_PARTS = 10_000
WORKERS = 8
DELETE_AT_ONCE = 1000
SPARE_BYTES = 2**30
"""Left free on the disk by whatever is fetched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """How an object is put: encrypted with this key, with these tags."""

    kms_key: str
    tags: Mapping[str, str]

    def arguments(self) -> dict[str, str]:
        return {
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": self.kms_key,
            "Tagging": urllib.parse.urlencode(sorted(self.tags.items())),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """An object that is there."""

    key: str
    size: int


class Bucket:
    """One bucket. Every method raises LoggedOut, ConfigError, NotFound or BackendError."""

    def __init__(self, clients: Clients, name: str, state: Path) -> None:
        """`state` is a folder for what is known of uploads under way."""
        self.name = name
        self._s3 = clients.get("s3")
        self._state = state

    def uri(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    # Up

    def put(self, key: str, data: bytes, sent: Sent) -> None:
        with aws_errors(f"sending {key}"):
            self._s3.put_object(Bucket=self.name, Key=key, Body=data, ChecksumCRC32=_crc(data), **sent.arguments())

    def send(self, path: Path, key: str, sent: Sent) -> bool:
        """Put a file whose key holds its digest; whether it had to be sent, for what is there already stays."""
        size = path.stat().st_size
        known = self.head(key)
        if known is not None and known.size == size:
            self._forget(key)
            return False
        if size <= PART_BYTES:
            self.put(key, path.read_bytes(), sent)
        else:
            self._send_parts(path, key, sent)
        return True

    def _send_parts(self, path: Path, key: str, sent: Sent) -> None:
        size = path.stat().st_size
        part_bytes = max(PART_BYTES, -(-size // MOST_PARTS))
        upload, done = self._under_way(key, part_bytes)
        if upload is None:
            with aws_errors(f"sending {key}"):
                upload = str(
                    self._s3.create_multipart_upload(
                        Bucket=self.name, Key=key, ChecksumAlgorithm="CRC32", **sent.arguments()
                    )["UploadId"]
                )
            self._write(key, upload, part_bytes, {})
        missing = [n for n in range(1, -(-size // part_bytes) + 1) if n not in done]
        parts = _Parts(path=path, key=key, upload=upload, part_bytes=part_bytes)
        failed = threading.Event()
        with ThreadPoolExecutor(WORKERS) as pool:
            futures = {pool.submit(self._send_part, parts, number, failed): number for number in missing}
            errors = []
            for future in as_completed(futures):
                if error := future.exception():
                    errors.append(error)  # parts on their way still count when they arrive
                elif part := future.result():
                    done[futures[future]] = part
                    self._write(key, upload, part_bytes, done)
        if errors:
            raise errors[0]
        listed = [{"PartNumber": n, "ETag": etag, "ChecksumCRC32": crc} for n, (etag, crc) in sorted(done.items())]
        with aws_errors(f"finishing {key}"):
            self._s3.complete_multipart_upload(
                Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": listed}
            )
        self._forget(key)

    def _send_part(self, parts: _Parts, number: int, failed: threading.Event) -> tuple[str, str] | None:
        """Its ETag and checksum; None where another part has failed before it began."""
        if failed.is_set():
            return None
        data = parts.read(number)
        crc = _crc(data)
        try:
            with aws_errors(f"sending {parts.key}, part {number}"):
                answer = self._s3.upload_part(
                    Bucket=self.name,
                    Key=parts.key,
                    UploadId=parts.upload,
                    PartNumber=number,
                    Body=data,
                    ChecksumCRC32=crc,
                )
        except EliasError:
            failed.set()
            raise
        return str(answer["ETag"]), crc

    def _under_way(self, key: str, part_bytes: int) -> tuple[str | None, dict[int, tuple[str, str]]]:
        """An upload that was cut off, and those of its parts that S3 still has."""
        path = self._state_of(key)
        if not path.exists():
            return None, {}
        raw = json.loads(path.read_bytes())
        if raw["part_bytes"] != part_bytes:
            return None, {}
        try:
            with aws_errors(f"asking after the upload of {key}"):
                pages = self._s3.get_paginator("list_parts").paginate(Bucket=self.name, Key=key, UploadId=raw["upload"])
                there = {int(part["PartNumber"]) for page in pages for part in page.get("Parts", [])}
        except NotFound:
            return None, {}  # given up by the bucket's lifecycle, or finished and its answer lost
        kept = {int(number): (etag, crc) for number, (etag, crc) in raw["parts"].items()}
        return raw["upload"], {number: part for number, part in kept.items() if number in there}

    def _write(self, key: str, upload: str, part_bytes: int, parts: Mapping[int, tuple[str, str]]) -> None:
        kept = {str(number): list(part) for number, part in parts.items()}
        state = {"upload": upload, "part_bytes": part_bytes, "parts": kept}
        write_whole(self._state_of(key), canonical_json(state))

    def _forget(self, key: str) -> None:
        self._state_of(key).unlink(missing_ok=True)

    def _state_of(self, key: str) -> Path:
        return self._state / f"{urllib.parse.quote(self.uri(key), safe='')[-200:]}.json"

    # Down

    def fetch(self, key: str, target: Path, *, largest: int, digest: Digest | None = None) -> Path:
        """The object as a file, whole or not at all.

        Raises NotFound, DigestMismatch when it is not `digest`, DiskFull before what there is no room for is begun, and
        BackendError for one that is larger than `largest` bytes.
        """
        thing = self.head(key)
        if thing is None:
            raise NotFound(f"{self.uri(key)} is not there", fix="elias run resume")
        if thing.size > largest:
            raise BackendError(
                f"{self.uri(key)} has {thing.size} bytes, more than the {largest} that may come home",
                fix="raise largest_output_gb under [backends.sagemaker] if that is right",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if thing.size + SPARE_BYTES > shutil.disk_usage(target.parent).free:
            raise DiskFull(f"no room for the {thing.size} bytes of {key}", fix="free some space; it is fetched again")
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._fetch_into(part, thing)
            if digest is not None and (found := digest_file(part)) != digest:
                raise DigestMismatch(f"{self.uri(key)} is {found}, not {digest}", fix="it is fetched again by itself")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
        return target

    def read(self, key: str, *, largest: int = 2**20) -> bytes | None:
        """A small object's bytes; None where there is none. Raises BackendError for one that is larger."""
        try:
            with aws_errors(f"reading {key}"):
                data: bytes = self._s3.get_object(Bucket=self.name, Key=key)["Body"].read(largest + 1)
        except NotFound:
            return None
        if len(data) > largest:
            raise BackendError(f"{self.uri(key)} has more than {largest} bytes", fix="look at it in the S3 console")
        return data

    def _fetch_into(self, path: Path, thing: Thing) -> None:
        with path.open("wb") as stream:
            stream.truncate(thing.size)
            ranges = [(start, min(start + PART_BYTES, thing.size)) for start in range(0, thing.size, PART_BYTES)]
            with ThreadPoolExecutor(WORKERS) as pool:
                for _ in pool.map(lambda span: self._fetch_range(stream.fileno(), thing.key, span), ranges):
                    continue
            os.fsync(stream.fileno())

    def _fetch_range(self, handle: int, key: str, span: tuple[int, int]) -> None:
        first, end = span
        with aws_errors(f"fetching {key}"):
            body = self._s3.get_object(Bucket=self.name, Key=key, Range=f"bytes={first}-{end - 1}")["Body"]
            at = first
            while chunk := body.read(2**20):
                os.pwrite(handle, chunk, at)
                at += len(chunk)
        if at != end:
            raise BackendError(f"fetching {key}: the connection ended early", fix="it is fetched again by itself")

    # What is there

    def head(self, key: str) -> Thing | None:
        try:
            with aws_errors(f"looking for {key}"):
                answer = self._s3.head_object(Bucket=self.name, Key=key)
        except NotFound:
            return None
        return Thing(key=key, size=int(answer["ContentLength"]))

    def under(self, prefix: str) -> Iterator[Thing]:
        with aws_errors(f"listing {prefix}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                yield from (Thing(key=o["Key"], size=int(o["Size"])) for o in page.get("Contents", []))

    def copy(self, source: str, target: str, sent: Sent) -> None:
        """Within the bucket, without a byte passing here; large ones in parts."""
        with aws_errors(f"copying {source}"):
            self._s3.copy(
                {"Bucket": self.name, "Key": source},
                self.name,
                target,
                ExtraArgs={"TaggingDirective": "REPLACE", **sent.arguments()},
                Config=TransferConfig(use_threads=False),
            )

    def delete_under(self, prefix: str) -> None:
        """Every object whose key begins so, in all its versions: what is gone cannot be read any more."""
        with aws_errors(f"deleting {prefix}"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                self._delete([{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found])

    def _delete(self, entries: list[dict[str, Any]]) -> None:
        for first in range(0, len(entries), DELETE_AT_ONCE):
            some = entries[first : first + DELETE_AT_ONCE]
            answer = self._s3.delete_objects(Bucket=self.name, Delete={"Objects": some, "Quiet": True})
            if failed := answer.get("Errors"):
                raise BackendError(
                    f"deleting {failed[0]['Key']}: AWS answers {failed[0].get('Code')}", fix="elias aws check"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    path: Path
    key: str
    upload: str
    part_bytes: int

    def read(self, number: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek((number - 1) * self.part_bytes)
            return stream.read(self.part_bytes)


def _crc(data: bytes) -> str:
    """As S3 writes it: the big-endian CRC-32 in base64."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
