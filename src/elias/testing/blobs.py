"""Blobs in a folder, for tests of what stands on a blob store."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from elias.errors import DigestMismatch, NotFound
from elias_trainer.contract import Digest, digest_bytes, digest_file, write_whole


class FolderBlobs:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: BinaryIO) -> Digest:
        content = data.read()
        digest = digest_bytes(content)
        write_whole(self.folder / digest.hex, content)
        return digest

    def open(self, digest: Digest) -> BinaryIO:
        return self.path(digest).open("rb")

    def path(self, digest: Digest) -> Path:
        path = self.folder / digest.hex
        if not path.exists():
            raise NotFound(f"no blob {digest.short}", fix="put it first")
        if digest_file(path) != digest:
            raise DigestMismatch(f"{path} has changed", fix="restore it")
        return path
