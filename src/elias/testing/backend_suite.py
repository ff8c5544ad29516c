"""The contract of `elias.ports.backend.Backend`, as tests. A backend passes it by one subclass:

    class TestMine(BackendSuite):
        @pytest.fixture
        def backend(self, tmp_path):
            return MyBackend(...)

Nothing here knows where the backend keeps its files, or whether it is on this machine. The bundles hold the fake
trainer (`elias.testing.fake_trainer`), which any place with Python 3.11 can run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.run import SegmentState
from elias.errors import DigestMismatch, LabelForbids
from elias.ports.backend import Backend, Bundle, CanForget, CanPause, NeedsLease, Status, StreamsEvents
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias_trainer.contract import (
    FailureKind,
    Limits,
    Outcome,
    Recipe,
    Result,
    digest_bytes,
    file_digests,
    from_json,
    tree_digest,
)

MakeBundle = Callable[..., Bundle]


class BackendSuite:
    patience_s = 300.0
    """How long a segment of a second's work may take from `submit` to its end at this place, on a busy machine too."""
    poll_s = 0.03
    LONG = Recipe(max_steps=100_000)

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend | Iterator[Backend]:
        pytest.fail("override the fixture `backend` with one that gives the backend under test")

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> MakeBundle:
        def make(key: str = "suite-0001", **wanted: object) -> Bundle:
            return make_bundle(tmp_path / "bundles" / key, key, Wanted(**wanted))  # type: ignore[arg-type] # Wanted's own fields

        return make

    # What is on offer

    def test_an_offer_names_its_backend_and_what_it_costs(self, backend: Backend, bundle: MakeBundle) -> None:
        offers = backend.offers(need_of(bundle()))
        assert offers
        for offer in offers:
            assert offer.backend and offer.accelerator and offer.accelerator_count >= 1 and offer.memory_bytes > 0
            assert offer.hourly.micro_usd >= 0 and offer.concurrency >= 1
            assert offer.left is None or offer.refreshes_at is not None
        assert any(offer.refused is None for offer in offers)

    def test_asking_for_offers_twice_gives_the_same(self, backend: Backend, bundle: MakeBundle) -> None:
        need = need_of(bundle())
        assert [o.accelerator for o in backend.offers(need)] == [o.accelerator for o in backend.offers(need)]

    # To the end

    def test_a_segment_runs_to_its_end_and_comes_home_whole(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        handle = self.submit(backend, bundle())
        status = self.wait(backend, handle)
        assert status.state is SegmentState.DONE and status.failure is None
        assert status.ended_at is not None
        backend.fetch(handle, tmp_path / "home")
        result = self.result(tmp_path / "home")
        assert result.outcome is Outcome.DONE and result.segment == "suite-0001" and result.step == 12
        found = file_digests(tmp_path / "home")
        assert {name: found.get(name) for name in result.outputs} == dict(result.outputs)
        assert (tmp_path / "home" / "events.jsonl").read_bytes().endswith(b"\n")

    def test_submitting_a_key_again_finds_the_same_segment(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        made = bundle()
        handle = self.submit(backend, made)
        assert self.submit(backend, made) == handle
        self.wait(backend, handle)
        assert self.submit(backend, made) == handle
        assert backend.poll(handle).state is SegmentState.DONE
        backend.fetch(handle, tmp_path / "home")
        started = (tmp_path / "home" / "events.jsonl").read_text().count('"started"')
        assert started == 1, "the segment was started more than once"

    def test_a_final_state_stays(self, backend: Backend, bundle: MakeBundle) -> None:
        handle = self.submit(backend, bundle())
        ended = self.wait(backend, handle)
        backend.cancel(handle)
        assert backend.poll(handle) == ended == backend.poll(handle)

    def test_fetching_twice_changes_nothing(self, backend: Backend, bundle: MakeBundle, tmp_path: Path) -> None:
        handle = self.submit(backend, bundle())
        self.wait(backend, handle)
        backend.fetch(handle, tmp_path / "home")
        before = file_digests(tmp_path / "home")
        backend.fetch(handle, tmp_path / "home")
        assert file_digests(tmp_path / "home") == before

    def test_a_handle_nobody_knows_is_a_failed_segment(self, backend: Backend) -> None:
        status = backend.poll("suite-never-0001")
        assert status.state is SegmentState.FAILED
        assert status.failure is not None and status.failure.kind is FailureKind.INFRASTRUCTURE

    def test_what_the_trainer_says_of_its_failure_is_passed_on(self, backend: Backend, bundle: MakeBundle) -> None:
        handle = self.submit(backend, bundle(base=fake_base(fail="capacity@3")))
        status = self.wait(backend, handle)
        assert status.state is SegmentState.FAILED
        assert status.failure is not None and status.failure.kind is FailureKind.CAPACITY
        assert "step 3" in status.failure.message

    def test_a_trainer_that_vanishes_is_a_failure_worth_another_try_and_its_checkpoint_comes_home(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        wanted = {"base": fake_base(die_at=6), "limits": Limits(checkpoint_every_s=0)}
        handle = self.submit(backend, bundle(**wanted))
        status = self.wait(backend, handle)
        assert status.state is SegmentState.FAILED
        assert status.failure is not None
        assert status.failure.kind in (FailureKind.INFRASTRUCTURE, FailureKind.PREEMPTED)
        backend.fetch(handle, tmp_path / "home")
        assert self.checkpoint(tmp_path / "home").name == "step-00000005"

    # Segments that follow one another

    def test_a_segment_pauses_at_its_deadline(self, backend: Backend, bundle: MakeBundle, tmp_path: Path) -> None:
        handle = self.submit(backend, bundle(recipe=self.LONG, limits=Limits(seconds=0.3)))
        assert self.wait(backend, handle).state is SegmentState.PAUSED
        backend.fetch(handle, tmp_path / "home")
        result = self.result(tmp_path / "home")
        assert result.reason == "deadline" and result.checkpoint is not None
        assert tree_digest(tmp_path / "home" / result.checkpoint.path) == result.checkpoint.digest
        assert not (tmp_path / "home" / "adapter").exists()

    def test_two_segments_give_the_bytes_of_one(self, backend: Backend, bundle: MakeBundle, tmp_path: Path) -> None:
        alone = self.adapter(backend, self.submit(backend, bundle("alone-0001")), tmp_path / "alone")
        first = self.submit(backend, bundle("pair-0001", limits=Limits(stop_at_step=5)))
        assert self.wait(backend, first).state is SegmentState.PAUSED
        backend.fetch(first, tmp_path / "first")
        checkpoint = self.checkpoint(tmp_path / "first")
        second = self.submit(backend, bundle("pair-0002", checkpoint=checkpoint))
        assert self.adapter(backend, second, tmp_path / "second") == alone
        assert self.result(tmp_path / "second").started_at_step == 5

    # While it runs

    def test_fetching_a_running_segment_brings_its_checkpoint(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        handle = self.submit(backend, bundle(recipe=self.LONG, limits=Limits(checkpoint_every_s=0.05)))
        home = tmp_path / "home"
        self.until(backend, handle, lambda: self.has_checkpoint(backend, handle, home))
        manifest = self.checkpoint(home) / "manifest.json"
        assert manifest.exists() and not (home / "result.json").exists()
        backend.cancel(handle)
        assert self.wait(backend, handle).state is SegmentState.CANCELLED

    def test_cancelling_keeps_the_checkpoint(self, backend: Backend, bundle: MakeBundle, tmp_path: Path) -> None:
        handle = self.submit(backend, bundle(recipe=self.LONG, limits=Limits(checkpoint_every_s=0.05)))
        home = tmp_path / "home"
        self.until(backend, handle, lambda: self.has_checkpoint(backend, handle, home))
        before = self.checkpoint(home).name
        backend.cancel(handle)
        backend.cancel(handle)
        assert self.wait(backend, handle).state is SegmentState.CANCELLED
        backend.fetch(handle, home)
        assert self.checkpoint(home).name >= before

    def test_events_come_in_order_and_once(self, backend: Backend, bundle: MakeBundle) -> None:
        if not isinstance(backend, StreamsEvents):
            pytest.skip("this backend does not stream events")
        handle = self.submit(backend, bundle())
        self.wait(backend, handle)
        seqs = [int(event["seq"]) for event in backend.events(handle, -1)]
        assert seqs == list(range(len(seqs))) and len(seqs) > 12
        assert [int(event["seq"]) for event in backend.events(handle, seqs[-3])] == seqs[-2:]

    def test_a_paused_segment_ends_with_a_checkpoint(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        if not isinstance(backend, CanPause):
            pytest.skip("this backend cannot pause: a pause is a cancel")
        handle = self.submit(backend, bundle(recipe=self.LONG))
        self.until(backend, handle, lambda: backend.poll(handle).state is SegmentState.RUNNING)
        self.until(backend, handle, lambda: self.has_begun(backend, handle, tmp_path / "early"))
        backend.pause(handle)
        assert self.wait(backend, handle).state is SegmentState.PAUSED
        backend.fetch(handle, tmp_path / "home")
        assert self.result(tmp_path / "home").reason == "signal"
        assert self.checkpoint(tmp_path / "home").exists()

    def test_what_was_forgotten_is_still_known_to_have_ended(self, backend: Backend, bundle: MakeBundle) -> None:
        if not isinstance(backend, CanForget):
            pytest.skip("this backend keeps nothing that could be forgotten")
        handle = self.submit(backend, bundle())
        ended = self.wait(backend, handle)
        backend.forget(handle)
        backend.forget(handle)
        assert backend.poll(handle) == ended

    def test_a_trainer_nobody_waits_for_pauses_by_itself(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        if not isinstance(backend, NeedsLease):
            pytest.skip("this backend needs no lease")
        handle = self.submit(backend, bundle(recipe=self.LONG, lease_s=0.5))
        deadline = time.monotonic() + self.patience_s
        while not (status := backend.poll(handle)).state.is_final and time.monotonic() < deadline:
            time.sleep(self.poll_s)  # polls, and does not renew
        assert status.state is SegmentState.PAUSED
        backend.fetch(handle, tmp_path / "home")
        assert self.result(tmp_path / "home").reason == "lease"

    # What is refused

    @pytest.mark.parametrize("name", ["corpus.jsonl", "trainer.pyz"])
    def test_a_changed_file_is_refused_by_name(self, backend: Backend, bundle: MakeBundle, name: str) -> None:
        made = bundle()
        data = bytearray((made.folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (made.folder / name).write_bytes(data)
        assert digest_bytes(bytes(data)) != made.job.trainer
        with pytest.raises(DigestMismatch, match=name):
            self.submit(backend, made)

    def test_a_changed_checkpoint_is_refused_by_name(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        first = self.submit(backend, bundle("pair-0001", limits=Limits(stop_at_step=2)))
        self.wait(backend, first)
        backend.fetch(first, tmp_path / "first")
        made = bundle("pair-0002", checkpoint=self.checkpoint(tmp_path / "first"))
        with next(made.folder.glob("checkpoint/*/state.json")).open("ab") as stream:
            stream.write(b" ")
        with pytest.raises(DigestMismatch, match="step-00000002"):
            self.submit(backend, made)

    @pytest.mark.parametrize("label", list(Label))
    def test_a_label_that_forbids_the_place_is_refused_before_anything_is_copied(
        self, backend: Backend, bundle: MakeBundle, label: Label
    ) -> None:
        made = bundle(label=label)
        offer = self.offer(backend, made)
        if label is Label.SECRET and offer.needs_encryption:
            with pytest.raises(LabelForbids):
                backend.submit("suite-0001", made, offer)
            assert backend.poll("suite-0001").state is SegmentState.FAILED
        elif label is not Label.PRIVATE or not offer.needs_encryption:
            assert self.wait(backend, self.submit(backend, made)).state is SegmentState.DONE

    # How the tests speak to it

    def offer(self, backend: Backend, bundle: Bundle) -> Offer:
        return next(offer for offer in backend.offers(need_of(bundle)) if offer.refused is None)

    def submit(self, backend: Backend, bundle: Bundle) -> str:
        return backend.submit(bundle.job.segment, bundle, self.offer(backend, bundle))

    def wait(self, backend: Backend, handle: str) -> Status:
        """Its final status."""
        self.until(backend, handle, lambda: backend.poll(handle).state.is_final)
        return backend.poll(handle)

    def until(self, backend: Backend, handle: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patience_s
        while not is_so():
            if time.monotonic() > deadline:
                status = backend.poll(handle)
                backend.cancel(handle)
                pytest.fail(f"nothing came of it in {self.patience_s} s; last seen: {status}")
            if isinstance(backend, NeedsLease):
                backend.renew(handle)
            time.sleep(self.poll_s)

    def adapter(self, backend: Backend, handle: str, home: Path) -> bytes:
        assert self.wait(backend, handle).state is SegmentState.DONE
        backend.fetch(handle, home)
        return (home / "adapter" / "adapter_model.safetensors").read_bytes()

    def has_checkpoint(self, backend: Backend, handle: str, home: Path) -> bool:
        backend.fetch(handle, home)
        return any((home / "checkpoint").glob("step-*"))

    def has_begun(self, backend: Backend, handle: str, home: Path) -> bool:
        backend.fetch(handle, home)
        return (home / "events.jsonl").exists()

    def checkpoint(self, home: Path) -> Path:
        return max((home / "checkpoint").glob("step-*"))

    def result(self, home: Path) -> Result:
        return from_json(Result, (home / "result.json").read_bytes())
