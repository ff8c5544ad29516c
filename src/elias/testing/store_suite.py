"""What every store must do. Subclass each suite, and override the fixture `store` with an empty one.

class TestMyRunStore(RunStoreSuite):
    @pytest.fixture
    def store(self, tmp_path): return MyRunStore(tmp_path)
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from elias.domain.label import Label
from elias.domain.run import Checkpoint, RunState, SegmentFailure, SegmentState, Wish
from elias.domain.session import Evidence, Session
from elias.errors import NotFound
from elias.ports.stores import CorpusStore, FolderStore, ModelStore, RunStore, SessionStore
from elias.testing.nouns import a_corpus, a_digest, a_run, a_segment, a_session, a_verdict, an_artifact
from elias.units import Money
from elias_trainer.contract import FailureKind


class SessionStoreSuite:
    @pytest.fixture
    def store(self) -> SessionStore:
        pytest.fail("override the fixture `store`")

    def test_a_session_comes_back_as_it_was(self, store: SessionStore) -> None:
        session = a_session("été \x00 \u2028", evidence=(Evidence(kind="doctests", passed=2, total=3),))
        assert store.add([session]) == 1
        assert store.get(session.id) == session

    def test_adding_twice_adds_nothing(self, store: SessionStore) -> None:
        assert store.add([a_session("a"), a_session("b")]) == 2
        assert store.add([a_session("b"), a_session("c"), a_session("c")]) == 1
        assert len(list(store.select())) == 3

    def test_adding_again_renews_the_evidence_and_keeps_what_was_not_looked_at(self, store: SessionStore) -> None:
        mark = Evidence(kind="marked", passed=1, total=1)
        store.add([a_session("a", evidence=(Evidence(kind="lines_survived", passed=9, total=9), mark))])
        later = Evidence(kind="lines_survived", passed=3, total=9)
        store.add([a_session("a", evidence=(later,))])
        assert set(store.get(a_session("a").id).evidence) == {later, mark}

    def test_adding_again_keeps_the_label_and_the_stage(self, store: SessionStore) -> None:
        session = replace(a_session("a"), stage=2)
        store.add([session])
        store.set_label(session.id, Label.SECRET)
        store.add([replace(session, label=Label.PUBLIC, stage=4)])
        assert store.get(session.id) == replace(session, label=Label.SECRET)

    def test_all_come_in_order_of_id(self, store: SessionStore) -> None:
        store.add(a_session(f"text {n}") for n in range(40))
        ids = [session.id for session in store.select()]
        assert ids == sorted(ids)
        assert len(ids) == 40

    def test_many_are_read_to_the_last(self, store: SessionStore) -> None:
        sessions = [a_session(f"text {n}") for n in range(1203)]
        assert store.add(sessions) == 1203
        assert {session.id for session in store.select()} == {session.id for session in sessions}

    def test_they_can_be_selected_by_source_and_label(self, store: SessionStore) -> None:
        chat, git = a_session("a"), a_session("a", source="git")
        store.add([chat, git])
        store.set_label(git.id, Label.PUBLIC)
        assert [s.id for s in store.select(source="chat")] == [chat.id]
        assert [s.id for s in store.select(label=Label.PUBLIC)] == [git.id]
        assert list(store.select(source="chat", label=Label.PUBLIC)) == []

    def test_a_prefix_that_only_one_has_is_enough(self, store: SessionStore) -> None:
        sessions = [a_session(f"text {n}") for n in range(20)]
        store.add(sessions)
        store.set_label(sessions[3].id[:12], Label.SHARED)
        assert store.get(sessions[3].id[:12]).label is Label.SHARED

    def test_a_prefix_of_several_is_not_found_and_names_them(self, store: SessionStore) -> None:
        sessions = [a_session(f"text {n}") for n in range(17)]  # 17 ids, 16 first digits
        store.add(sessions)
        first = [session.id[0] for session in sessions]
        shared = next(digit for digit in first if first.count(digit) > 1)
        with pytest.raises(NotFound, match="more than one"):
            store.get(shared)

    @pytest.mark.parametrize("name", ["", "zz", "%", "_"])
    def test_what_is_not_there_is_not_found(self, store: SessionStore, name: str) -> None:
        store.add([a_session("a")])
        with pytest.raises(NotFound):
            store.get(name)
        with pytest.raises(NotFound):
            store.set_label(name, Label.PUBLIC)

    def test_what_was_read_before_a_source_failed_can_be_read_again(self, store: SessionStore) -> None:
        with pytest.raises(OSError, match="gone"):
            store.add(_one_then_a_failure())
        store.add([a_session("a"), a_session("b")])
        assert len(list(store.select())) == 2


class CorpusStoreSuite:
    @pytest.fixture
    def store(self) -> CorpusStore:
        pytest.fail("override the fixture `store`")

    def test_a_corpus_comes_back_as_it_was(self, store: CorpusStore) -> None:
        store.add(a_corpus())
        store.add(a_corpus())
        assert store.list() == [a_corpus()]
        assert store.get(a_corpus().digest) == a_corpus()

    def test_a_prefix_of_the_hex_is_enough(self, store: CorpusStore) -> None:
        store.add(a_corpus("a"))
        store.add(a_corpus("b"))
        assert store.get(a_digest("a").hex[:9]) == a_corpus("a")
        assert store.get(a_digest("b").hex[:9].upper()) == a_corpus("b")

    def test_the_newest_is_first_and_latest(self, store: CorpusStore) -> None:
        for name, minutes in (("old", 0.0), ("new", 2.5), ("middle", 2)):
            store.add(a_corpus(name, minutes=minutes))
        assert [corpus.built_at for corpus in store.list()] == sorted([c.built_at for c in store.list()], reverse=True)
        assert store.get("latest") == a_corpus("new", minutes=2.5)

    def test_what_is_built_again_is_the_latest(self, store: CorpusStore) -> None:
        store.add(a_corpus("a"))
        store.add(a_corpus("b", minutes=1))
        store.add(a_corpus("a", minutes=2))
        store.add(a_corpus("a", minutes=0))
        assert store.get("latest") == a_corpus("a", minutes=2)
        assert len(store.list()) == 2

    @pytest.mark.parametrize("name", ["latest", "", "sha256:", "00", "%"])
    def test_what_is_not_there_is_not_found(self, store: CorpusStore, name: str) -> None:
        with pytest.raises(NotFound):
            store.get(name)


class RunStoreSuite:
    @pytest.fixture
    def store(self) -> RunStore:
        pytest.fail("override the fixture `store`")

    def test_a_run_comes_back_as_it_was(self, store: RunStore) -> None:
        store.add(a_run())
        assert store.get("run-1") == a_run()

    def test_adding_a_run_again_changes_nothing(self, store: RunStore) -> None:
        store.add(a_run())
        store.update("run-1", state=RunState.RUNNING)
        store.add(a_run())
        assert store.get("run-1").state is RunState.RUNNING

    def test_a_prefix_is_enough_where_only_one_has_it(self, store: RunStore) -> None:
        store.add(a_run("abc-1"))
        store.add(a_run("abd-1"))
        store.add(a_run("abd"))
        assert store.get("abc").id == "abc-1"
        assert store.get("abd").id == "abd"
        with pytest.raises(NotFound, match="more than one"):
            store.get("ab")
        with pytest.raises(NotFound):
            store.get("ABC")

    def test_runs_are_listed_newest_first(self, store: RunStore) -> None:
        for name, minutes in (("old", 0), ("new", 2), ("twin", 2), ("middle", 1)):
            store.add(a_run(name, minutes=minutes))
        assert [run.id for run in store.list()] == ["twin", "new", "middle", "old"]

    def test_an_update_sets_its_fields_alone(self, store: RunStore) -> None:
        store.add(a_run())
        changed = store.update("run-1", wish=Wish.PAUSE, reason="by hand", node="attic")
        assert changed == replace(a_run(), wish=Wish.PAUSE, reason="by hand", node="attic")
        assert store.get("run-1") == changed
        assert store.update("run-1", reason=None).reason is None

    @pytest.mark.parametrize("state", [state for state in RunState if state.is_final])
    def test_a_final_state_of_a_run_is_never_left(self, store: RunStore, state: RunState) -> None:
        store.add(a_run())
        ended = store.update("run-1", state=state)
        assert store.update("run-1", state=RunState.RUNNING, reason="on and on") == ended
        assert store.get("run-1") == ended

    def test_an_ended_run_still_takes_its_artifact(self, store: RunStore) -> None:
        store.add(a_run())
        store.update("run-1", state=RunState.DONE)
        assert store.update("run-1", state=RunState.DONE, artifact=a_digest("model")).artifact == a_digest("model")

    @pytest.mark.parametrize("changes", [{"speed": 1}, {"id": "other"}, {"state": "flying"}, {"created_at": None}])
    def test_a_wrong_field_is_a_value_error_and_changes_nothing(self, store: RunStore, changes: dict[str, Any]) -> None:
        store.add(a_run())
        with pytest.raises(ValueError, match=next(iter(changes.values())) if "state" in changes else "no field"):
            store.update("run-1", wish=Wish.PAUSE, **changes)
        assert store.get("run-1") == a_run()

    def test_updating_a_run_that_is_not_there_is_not_found(self, store: RunStore) -> None:
        with pytest.raises(NotFound):
            store.update("run-9", reason="none")

    def test_a_segment_is_added_and_replaced(self, store: RunStore) -> None:
        store.put_segment(a_segment(number=2))
        store.put_segment(a_segment(number=1))
        going = replace(a_segment(number=1), state=SegmentState.RUNNING, handle="pid-7", cost=Money(5))
        store.put_segment(going)
        assert store.segments("run-1") == [going, a_segment(number=2)]
        assert store.segments("run-2") == []

    def test_segments_are_in_order_of_number(self, store: RunStore) -> None:
        for number in (10, 2, 1, 11):
            store.put_segment(a_segment(number=number))
        assert [segment.number for segment in store.segments("run-1")] == [1, 2, 10, 11]

    @pytest.mark.parametrize("state", [state for state in SegmentState if state.is_final])
    def test_a_final_state_of_a_segment_is_never_left(self, store: RunStore, state: SegmentState) -> None:
        ended = replace(a_segment(), state=state)
        store.put_segment(ended)
        store.put_segment(replace(ended, state=SegmentState.RUNNING))
        assert store.segments("run-1") == [ended]

    def test_an_ended_segment_still_takes_more_about_its_end(self, store: RunStore) -> None:
        failure = SegmentFailure(kind=FailureKind.PREEMPTED, message="taken", fix="wait")
        ended = replace(a_segment(), state=SegmentState.FAILED)
        store.put_segment(ended)
        full = replace(ended, failure=failure, end=Checkpoint(step=4, digest=a_digest("checkpoint"), path="4"))
        store.put_segment(full)
        assert store.segments("run-1") == [full]

    def test_events_are_kept_once_and_in_order(self, store: RunStore) -> None:
        events = [{"seq": n, "kind": "step", "loss": 1.5 / (n + 1), "note": None} for n in range(5)]
        store.append_events("run-1-0001", [events[3], events[0]])
        store.append_events("run-1-0001", [*events, {"seq": 3, "kind": "other"}])
        assert store.events("run-1-0001") == events
        assert store.events("run-1-0001", after=2) == events[3:]
        assert store.events("run-1-0002") == []

    def test_thousands_of_events_are_kept(self, store: RunStore) -> None:
        store.append_events("run-1-0001", ({"seq": n} for n in range(6000)))
        assert [event["seq"] for event in store.events("run-1-0001", after=5990)] == list(range(5991, 6000))

    @pytest.mark.parametrize("bad", [{"kind": "step"}, {"seq": "1"}, {"seq": True}, {"seq": 2, "loss": float("nan")}])
    def test_an_event_that_cannot_be_kept_is_a_value_error_and_none_is(
        self, store: RunStore, bad: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match=r"seq|JSON"):
            store.append_events("run-1-0001", [{"seq": 0}, bad])
        assert store.events("run-1-0001") == []


class ModelStoreSuite:
    @pytest.fixture
    def store(self) -> ModelStore:
        pytest.fail("override the fixture `store`")

    def test_an_artifact_comes_back_as_it_was(self, store: ModelStore) -> None:
        store.add_artifact(an_artifact())
        store.add_artifact(an_artifact())
        assert store.artifacts() == [an_artifact()]
        assert store.artifact(a_digest("model")) == store.artifact(a_digest("model").hex[:8]) == an_artifact()

    def test_the_newest_artifact_is_first_and_latest(self, store: ModelStore) -> None:
        for name, minutes in (("old", 0), ("new", 2), ("middle", 1)):
            store.add_artifact(an_artifact(name, minutes=minutes))
        assert [a.digest for a in store.artifacts()] == [a_digest("new"), a_digest("middle"), a_digest("old")]
        assert store.artifact("latest").digest == a_digest("new")

    def test_the_same_bytes_of_a_later_run_leave_the_first_as_it_is(self, store: ModelStore) -> None:
        store.add_artifact(an_artifact(run="run-1"))
        store.add_artifact(an_artifact(run="run-2", minutes=3))
        assert [artifact.run for artifact in store.artifacts()] == ["run-1"]

    @pytest.mark.parametrize("name", ["latest", "", "00", "sha256:00"])
    def test_an_artifact_that_is_not_there_is_not_found(self, store: ModelStore, name: str) -> None:
        with pytest.raises(NotFound):
            store.artifact(name)

    def test_verdicts_stay_as_they_were_judged_newest_first(self, store: ModelStore) -> None:
        store.add_verdict(a_verdict("one"))
        store.add_verdict(a_verdict("two", candidate="other", minutes=1))
        store.add_verdict(replace(a_verdict("one"), accepted=False))
        assert store.verdicts() == [a_verdict("two", candidate="other", minutes=1), a_verdict("one")]
        assert store.verdicts(a_digest("model")) == [a_verdict("one")]
        assert store.verdicts(a_digest("third")) == []

    def test_deployments_are_numbered_and_the_newest_is_in_service(self, store: ModelStore) -> None:
        assert store.deployments() == []
        first = store.add_deployment("tiny", None, "reference", "start")
        second = store.add_deployment("tiny", a_digest("model"), "reference", "deploy")
        third = store.add_deployment("tiny", None, "reference", "rollback")
        assert [first.id, second.id, third.id] == [1, 2, 3]
        assert store.deployments() == [third, second, first]
        assert abs(third.deployed_at - datetime.now(UTC)) < timedelta(days=36500), "an aware instant"

    def test_deploying_what_is_in_service_is_of_no_effect(self, store: ModelStore) -> None:
        first = store.add_deployment("tiny", a_digest("model"), "reference", "deploy")
        assert store.add_deployment("tiny", a_digest("model"), "reference", "start") == first
        assert store.deployments() == [first]


class FolderStoreSuite:
    @pytest.fixture
    def store(self) -> FolderStore:
        pytest.fail("override the fixture `store`")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "folder"
        (folder / "deep").mkdir(parents=True)
        (folder / "empty").touch()
        (folder / "deep" / "large").write_bytes(random.Random(3).randbytes((2 << 20) + 17))
        (folder / ".half.part").write_bytes(b"still being written")
        return folder

    def test_a_folder_comes_back_as_it_was_without_what_is_half_written(
        self, store: FolderStore, folder: Path, tmp_path: Path
    ) -> None:
        store.keep("here", folder)
        assert store.bring("here", tmp_path / "there")
        assert _files(tmp_path / "there") == {k: v for k, v in _files(folder).items() if k != ".half.part"}

    def test_nothing_is_brought_where_nothing_is_kept(self, store: FolderStore, tmp_path: Path) -> None:
        assert not store.bring("nowhere", tmp_path / "there")
        assert not (tmp_path / "there").exists()

    def test_only_what_is_chosen_goes_and_comes(self, store: FolderStore, folder: Path, tmp_path: Path) -> None:
        store.keep("here", folder, lambda path: path != "empty")
        store.keep("here", folder, lambda path: path == "empty")
        store.bring("here", tmp_path / "there", lambda path: not path.startswith("deep/"))
        assert list(_files(tmp_path / "there")) == ["empty"]

    def test_a_file_that_was_changed_or_lost_here_is_mended_and_others_stay(
        self, store: FolderStore, folder: Path
    ) -> None:
        store.keep("here", folder)
        before = _files(folder)
        (folder / "deep" / "large").write_bytes(b"damaged")
        (folder / "empty").unlink()
        (folder / "mine").write_bytes(b"mine")
        store.bring("here", folder)
        assert _files(folder) == before | {"mine": b"mine"}

    def test_keeping_a_changed_file_again_replaces_it(self, store: FolderStore, folder: Path, tmp_path: Path) -> None:
        store.keep("here", folder)
        (folder / "empty").write_bytes(b"no more")
        store.keep("here", folder)
        store.bring("here", tmp_path / "there")
        assert (tmp_path / "there" / "empty").read_bytes() == b"no more"

    def test_what_is_forgotten_is_gone_and_the_same_bytes_elsewhere_stay(
        self, store: FolderStore, folder: Path, tmp_path: Path
    ) -> None:
        for place in ("one", "two"):
            store.keep(place, folder)
        store.forget("one", "deep/")
        store.bring("one", tmp_path / "one")
        store.bring("two", tmp_path / "two")
        assert sorted(_files(tmp_path / "one")) == ["empty"]
        assert sorted(_files(tmp_path / "two")) == ["deep/large", "empty"]
        store.forget("two")
        assert not store.bring("two", tmp_path / "three")


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _one_then_a_failure() -> Iterator[Session]:
    yield a_session("a")
    raise OSError("the disk is gone")
