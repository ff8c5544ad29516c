"""Blobs: whole or absent, compared with their digest on every read."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from elias.adapters.blobs import FileBlobs
from elias.errors import DigestMismatch, NotFound, StoreError
from elias_trainer.contract import Digest, digest_bytes

DATA = b"one\ntwo\n"


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def test_what_is_put_is_read_again_under_its_digest(blobs: FileBlobs, tmp_path: Path) -> None:
    digest = blobs.put(io.BytesIO(DATA))
    assert digest == digest_bytes(DATA)
    with blobs.open(digest) as stream:
        assert stream.read() == DATA
    assert blobs.path(digest) == tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def test_the_same_bytes_are_kept_once_and_nothing_else_is_left(blobs: FileBlobs, tmp_path: Path) -> None:
    assert blobs.put(io.BytesIO(DATA)) == blobs.put(io.BytesIO(DATA))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_blob_is_readable_by_its_owner_alone(blobs: FileBlobs) -> None:
    assert blobs.path(blobs.put(io.BytesIO(DATA))).stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("position", range(len(DATA)))
def test_a_flipped_byte_is_refused_naming_the_file(blobs: FileBlobs, position: int) -> None:
    digest = blobs.put(io.BytesIO(DATA))
    path = blobs.path(digest)
    changed = bytearray(DATA)
    changed[position] ^= 1
    path.chmod(0o600)
    path.write_bytes(changed)
    for read in (blobs.open, blobs.path):
        with pytest.raises(DigestMismatch) as caught:
            read(digest)
        assert str(path) in caught.value.what
        assert str(path) in caught.value.fix


def test_putting_the_good_bytes_again_mends_a_damaged_blob(blobs: FileBlobs) -> None:
    path = blobs.path(blobs.put(io.BytesIO(DATA)))
    path.chmod(0o600)
    path.write_bytes(b"rot")
    assert blobs.path(blobs.put(io.BytesIO(DATA))).read_bytes() == DATA


def test_a_blob_that_is_not_there_is_not_found(blobs: FileBlobs) -> None:
    with pytest.raises(NotFound, match="is not there"):
        blobs.open(Digest("sha256:" + "0" * 64))


def test_a_source_that_breaks_half_way_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionResetError("gone")
            return super().read(4)

    with pytest.raises(StoreError):
        blobs.put(Breaking(DATA))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_without_room_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    program = f"""
import io, resource
from pathlib import Path
from elias.adapters.blobs import FileBlobs
from elias.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    FileBlobs(Path({str(tmp_path)!r})).put(io.BytesIO(bytes(100_000)))
except StoreError as error:
    print(error.fix)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "make room" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_place_that_is_no_folder_is_told_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(StoreError) as caught:
        FileBlobs(tmp_path / "blobs").put(io.BytesIO(DATA))
    assert "ls -ld" in caught.value.fix


def test_a_large_blob_comes_back_byte_for_byte(blobs: FileBlobs) -> None:
    data = hashlib.sha256(b"seed").digest() * 100_000
    with blobs.open(blobs.put(io.BytesIO(data))) as stream:
        assert stream.read() == data
