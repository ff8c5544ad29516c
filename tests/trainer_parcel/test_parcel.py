from pathlib import Path

import pyrage
import pytest

from elias_trainer.contract import CheckpointRef, digest_file, tree_digest, write_whole
from elias_trainer.parcel import PARCEL_FILE, NotWhole, Outbox, Parcel, check_parcel, pack, unpack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint"
    write_whole(made / "state.safetensors", bytes(range(256)) * 500)
    write_whole(made / "deep" / "state.json", b"{}")
    return made


def test_a_folder_travels_and_comes_back_the_same(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "c.pack")
    unpack(tmp_path / "c.pack", tmp_path / "back")
    assert tree_digest(tmp_path / "back") == tree_digest(folder)


def test_what_is_sealed_shows_nothing_and_opens_only_with_its_key(folder: Path, tmp_path: Path) -> None:
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    pack(folder, tmp_path / "c.pack.age", (str(mine.to_public()),))
    assert bytes(range(64)) not in (tmp_path / "c.pack.age").read_bytes()
    unpack(tmp_path / "c.pack.age", tmp_path / "back", str(mine))
    assert tree_digest(tmp_path / "back") == tree_digest(folder)
    for identity in (str(other), None):
        with pytest.raises(NotWhole, match=r"c\.pack\.age"):
            unpack(tmp_path / "c.pack.age", tmp_path / "stolen", identity)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "c.pack.age", "checkpoint"]


@pytest.mark.parametrize("offset", [0, 40, 400, -1])
def test_a_flipped_byte_in_a_sealed_file_leaves_nothing_behind(folder: Path, tmp_path: Path, offset: int) -> None:
    mine = pyrage.x25519.Identity.generate()
    path = tmp_path / "c.pack.age"
    pack(folder, path, (str(mine.to_public()),))
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotWhole):
        unpack(path, tmp_path / "back", str(mine))
    assert not (tmp_path / "back").exists()


def parcel_in(folder: Path) -> Parcel:
    write_whole(folder / "corpus.jsonl", b"{}\n")
    write_whole(folder / "job.json", b"{}")
    files = {name: digest_file(folder / name) for name in ("corpus.jsonl", "job.json")}
    parcel = Parcel(segment="r-0001", files=files, sealed=False)
    write_whole(folder / PARCEL_FILE, parcel.to_json())
    return parcel


def test_a_parcel_is_checked_against_its_own_list_and_the_expected_digest(tmp_path: Path) -> None:
    parcel = parcel_in(tmp_path)
    assert check_parcel(tmp_path, parcel.digest) == parcel


def test_the_parcel_of_the_segment_before_is_refused(tmp_path: Path) -> None:
    expected = Parcel(segment="r-0002", files={}, sealed=False).digest
    parcel_in(tmp_path)
    with pytest.raises(NotWhole, match="of this segment"):
        check_parcel(tmp_path, expected)


@pytest.mark.parametrize("name", ["corpus.jsonl", "job.json"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    parcel_in(tmp_path)
    (tmp_path / name).write_bytes(b"[]")
    with pytest.raises(NotWhole, match=name):
        check_parcel(tmp_path, None)
    (tmp_path / name).unlink()
    with pytest.raises(NotWhole, match=name):
        check_parcel(tmp_path, None)


def test_a_parcel_list_that_cannot_be_read_is_not_whole(tmp_path: Path) -> None:
    for bad in (b"", b"[]", b'{"files": 3}', b"\xff"):
        (tmp_path / PARCEL_FILE).write_bytes(bad)
        with pytest.raises(NotWhole):
            Parcel.read(tmp_path)


def test_an_outbox_is_empty_until_something_is_whole(tmp_path: Path) -> None:
    assert Outbox.read(tmp_path).checkpoints == ()
    ref = CheckpointRef(step=3, path="checkpoint-00000003.pack", digest=parcel_in(tmp_path / "p").digest)
    box = Outbox(checkpoints=(ref,), files={"checkpoint-00000003.pack": ref.digest}, sealed=False)
    box.write(tmp_path)
    assert Outbox.read(tmp_path) == box
