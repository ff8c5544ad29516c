"""How a finished adapter becomes an artifact."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from elias.domain.run import SegmentState
from elias.errors import BadReceipt, BadStructure, DigestMismatch, InputError, StoreError
from elias.services.verify import read_receipt
from elias_trainer.contract import digest_bytes, digest_file, file_digests


def test_an_adapter_is_copied_whole_signed_and_entered_in_the_books(home, attest, build):
    trained = build.run(home)
    artifact = attest.admit(trained.run, trained.segments, trained.out)
    folder = home / "artifacts" / "sha256" / artifact.digest.hex
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "model.sig", "receipt.dsse.json"]
    assert file_digests(folder / "adapter") == file_digests(trained.out / "adapter")
    assert attest.models.artifact("latest") == artifact
    assert artifact.receipt == digest_file(folder / "receipt.dsse.json")
    assert artifact.bytes == sum(path.stat().st_size for path in (folder / "adapter").iterdir())
    assert [path.name for path in (home / "artifacts").iterdir()] == ["sha256"]


def test_the_id_is_the_subject_digest_of_the_openssf_manifest(admitted):
    digests = file_digests(admitted / "adapter")
    in_order = b"".join(bytes.fromhex(digests[name].hex) for name in sorted(digests))
    assert admitted.name == digest_bytes(in_order).hex


def test_the_receipt_tells_the_whole_story(home, attest, build, signer):
    trained = build.run(home)
    artifact = attest.admit(trained.run, trained.segments, trained.out)
    receipt = read_receipt(attest.folder(artifact.digest) / "receipt.dsse.json", signer)
    assert receipt.corpus == trained.run.corpus
    assert receipt.base_digest == digest_bytes(b"base")
    assert receipt.recipe == trained.run.recipe
    assert [link.outcome for link in receipt.segments] == ["paused", "failed", "done"]
    first, lost, last = receipt.segments
    assert (first.start, first.end_step, last.start_step, last.end_step) == (None, 5, 5, 10)
    assert last.start == first.end
    assert (lost.accelerator, lost.seconds, lost.tokens) == (None, {}, 0)
    job = trained.out.parents[1] / "0003" / "in" / "job.json"
    assert last.job == digest_file(job)
    assert last.trainer == digest_bytes(b"trainer")
    assert receipt.cost.micro_usd == 7
    assert receipt.tokens == 200
    assert receipt.seconds == {"load": 0.2, "train": 2.4}
    assert receipt.losses == (3.0, 2.0)


def test_taking_it_in_again_changes_nothing(home, attest, build):
    trained = build.run(home)
    first = attest.admit(trained.run, trained.segments, trained.out)
    before = file_digests(home / "artifacts")
    assert attest.admit(trained.run, trained.segments, trained.out) == first
    assert file_digests(home / "artifacts") == before


def test_a_crash_before_the_books_were_written_costs_nothing(home, attest, build, tmp_path):
    trained = build.run(home)
    first = attest.admit(trained.run, trained.segments, trained.out)
    other_books = build.home(tmp_path / "other")
    from elias.config import load
    from elias.wiring.stores import open_stores

    with open_stores(load(environment={"ELIAS_HOME": str(other_books)})) as empty:
        again = dataclasses.replace(attest, models=empty.models)
        assert again.admit(trained.run, trained.segments, trained.out) == first
        assert empty.models.artifact("latest") == first


def test_a_second_run_with_the_same_bytes_lays_its_receipt_beside_the_first(home, attest, build):
    one, two = build.run(home, "run-a"), build.run(home, "run-b")
    first = attest.admit(one.run, one.segments, one.out)
    second = attest.admit(two.run, two.segments, two.out)
    assert second == first
    assert len(attest.models.artifacts()) == 1
    found = attest.verify(first.digest)
    assert (found.receipt.run, found.also_from) == ("run-a", ("run-b",))
    attest.admit(two.run, two.segments, two.out)
    assert len(list(found.folder.glob("receipt*"))) == 2


def test_other_bytes_are_another_artifact(home, attest, build):
    one, two = build.run(home, "run-a"), build.run(home, "run-b", seed=1)
    first = attest.admit(one.run, one.segments, one.out)
    assert attest.admit(two.run, two.segments, two.out).digest != first.digest


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_file_that_is_not_what_the_trainer_wrote_is_not_taken_in(home, attest, build, name):
    trained = build.run(home)
    path = trained.out / "adapter" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DigestMismatch, match=name):
        attest.admit(trained.run, trained.segments, trained.out)
    assert list((home / "artifacts").glob("**/adapter")) == []


def test_an_adapter_that_the_trainer_wrote_wrong_is_not_taken_in(home, attest, build):
    trained = build.run(home)
    build.adapter(trained.out / "adapter", use_dora=True)
    path = trained.out / "result.json"
    result = json.loads(path.read_bytes())
    result["outputs"] = {f"adapter/{n}": d for n, d in file_digests(trained.out / "adapter").items()}
    path.write_text(json.dumps(result))
    with pytest.raises(BadStructure, match="use_dora"):
        attest.admit(trained.run, trained.segments, trained.out)
    assert list((home / "artifacts").iterdir()) == []


def test_segments_that_trained_on_two_bases_make_no_artifact(home, attest, build):
    trained = build.run(home)
    run = dataclasses.replace(
        trained.run, base=dataclasses.replace(trained.run.base, digest=digest_bytes(b"another base"))
    )
    with pytest.raises(BadReceipt, match="different bases"):
        attest.admit(run, trained.segments, trained.out)


def test_without_a_result_there_is_no_artifact(home, attest, build):
    trained = build.run(home)
    (trained.out / "result.json").unlink()
    with pytest.raises(BadReceipt, match=r"result\.json is missing"):
        attest.admit(trained.run, trained.segments, trained.out)


def test_a_disk_that_cannot_be_written_is_said_and_the_adapter_kept(home, attest, build):
    trained = build.run(home)
    (home / "artifacts").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        attest.admit(trained.run, trained.segments, trained.out)
    assert caught.value.kept == "the trained adapter in the run's folder"


def test_an_export_is_a_verified_copy(home, attest, admitted, tmp_path):
    found = attest.export("latest", tmp_path / "out" / "model")
    assert file_digests(tmp_path / "out" / "model") == file_digests(admitted)
    assert attest.verify(str(tmp_path / "out" / "model")).digest == found.digest
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_an_export_never_writes_over_anything(attest, admitted, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="not empty"):
        attest.export("latest", tmp_path / "full")


def test_a_damaged_model_is_not_exported(attest, admitted, tmp_path):
    (admitted / "adapter" / "adapter_config.json").write_bytes(b"{}")
    with pytest.raises(DigestMismatch):
        attest.export("latest", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_receipt_replaced_by_another_valid_one_is_noticed(home, attest, admitted, build, tmp_path):
    """Signed by this very node, for the same bytes, but not the one in the books."""
    trained = build.run(home, "run-b")
    elsewhere = dataclasses.replace(attest, artifacts=tmp_path / "elsewhere")
    later = elsewhere.admit(trained.run, trained.segments, trained.out)
    shutil.copy(elsewhere.folder(later.digest) / "receipt.dsse.json", admitted)
    with pytest.raises(BadReceipt, match="in its books"):
        attest.verify("latest")


def test_a_run_whose_last_segment_is_not_done_makes_no_artifact(home, attest, build):
    trained = build.run(home)
    paused = dataclasses.replace(trained.segments[-1], state=SegmentState.PAUSED)
    with pytest.raises(BadReceipt, match="run run-a: its last segment is not done"):
        attest.admit(trained.run, [*trained.segments[:-1], paused], trained.out)


def test_segments_that_do_not_follow_one_another_make_no_artifact(home, attest, build):
    trained = build.run(home)
    from_the_base = dataclasses.replace(trained.segments[-1], start=None)
    with pytest.raises(BadReceipt, match="segment 3 began from the base, but those before it had reached step 5"):
        attest.admit(trained.run, [*trained.segments[:-1], from_the_base], trained.out)
    assert list((home / "artifacts").iterdir()) == []
