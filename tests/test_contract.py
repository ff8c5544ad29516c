import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias_trainer import contract
from elias_trainer.contract import BaseModel, Digest, Input, Job, Lease, Limits, Method, Recipe, digest_bytes

ANY_DIGEST = digest_bytes(b"something")
JOB = Job(
    run="r1",
    segment="r1-0002",
    base=BaseModel(reference="tiny"),
    corpus=Input(path="corpus.jsonl", digest=ANY_DIGEST),
    recipe=Recipe(method=Method.QLORA, target_modules=("q_proj", "v_proj"), max_steps=12),
    limits=Limits(seconds=90, stop_at_step=6),
    checkpoint=Input(path="checkpoint/step-00000003", digest=ANY_DIGEST),
    lease=Lease(path="lease", seconds=30.0),
)


def test_a_job_survives_the_wall() -> None:
    assert contract.from_json(Job, contract.to_json(JOB)) == JOB


@given(
    st.builds(
        Limits, seconds=st.none() | st.floats(0, 1e6), checkpoint_every_s=st.floats(0, 1e4), stop_at_step=st.none()
    )
)
def test_any_limits_survive_the_wall(limits: Limits) -> None:
    job = dataclasses.replace(JOB, limits=limits)
    assert contract.from_json(Job, contract.to_json(job)) == job


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(contract.to_json(JOB)) | fields).encode()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (changed(schema="elias.job/99"), "elias.job/99"),
        (changed(colour="blue"), "unknown field 'colour'"),
        (changed(run=7), "Job.run"),
        (changed(corpus={"path": "c", "digest": "sha256:short"}), "Job.corpus.digest"),
        (changed(recipe={"method": "magic"}), "Job.recipe.method"),
        (changed(recipe={"rank": "16"}), "Job.recipe.rank"),
        (changed(recipe={"packing": 1}), "Job.recipe.packing"),
        (changed(corpus={"path": "c"}), "digest"),
        (b"[]", "schema is None"),
    ],
)
def test_a_job_that_is_not_one_is_refused_naming_the_field(data: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        contract.from_json(Job, data)


def test_a_folders_digest_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = contract.tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = contract.tree_digest(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({before, renamed, contract.tree_digest(tmp_path)}) == 3


def test_a_link_in_a_folder_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="link"):
        contract.tree_digest(tmp_path)


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    contract.write_whole(tmp_path / "deep" / "file", b"bytes")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
    assert (tmp_path / "deep" / "file").read_bytes() == b"bytes"


def test_only_a_digest_is_a_digest() -> None:
    assert Digest(ANY_DIGEST).hex == ANY_DIGEST[7:]
    for wrong in ("", "sha256:", ANY_DIGEST.upper(), ANY_DIGEST + "0", ANY_DIGEST[7:]):
        with pytest.raises(ValueError, match="not a sha256 digest"):
            Digest(wrong)


def test_threads_that_write_one_file_at_once_leave_one_of_them_whole(tmp_path: Path) -> None:
    bodies = [bytes([65 + n]) * 200_000 for n in range(8)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        for _ in range(5):
            list(pool.map(lambda body: contract.write_whole(tmp_path / "one", body), bodies))
            assert (tmp_path / "one").read_bytes() in bodies
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_could_not_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(OSError):
        contract.write_whole(tmp_path / "one", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
