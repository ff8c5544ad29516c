"""What may happen to the line, to the node and to the worker."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elias.domain.run import SegmentState
from elias.testing.bundles import CORPUS
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.waiting import wait_until
from elias_trainer.calls import Gone, Unreachable
from elias_trainer.contract import FailureKind, Limits, Recipe, digest_bytes, digest_file
from tests.adapters.worker.by_hand import BadLine, Hand
from tests.adapters.worker.conftest import (
    LONG,
    SETTINGS,
    Place,
    bundle_of,
    is_running,
    submit,
    to_the_end,
    to_the_end_of_patience,
    until,
)

STEPS = 60
LARGE = bytes(range(256)) * (5 << 12)
"""5 MiB."""
OFTEN = Limits(checkpoint_every_s=0.05)


def retried(attempt, most: int = 20) -> None:
    for _ in range(most):
        try:
            attempt()
            return
        except Unreachable:
            continue
    pytest.fail("it never got through")


def test_a_bundle_and_an_output_go_on_where_they_broke_off(place: Place, tmp_path: Path) -> None:
    backend = place.backend()
    line = BadLine(place.port, breaks_after=int(1.6 * (1 << 20)))
    hand = Hand(place, line.url)
    handle = submit(backend, bundle_of(place))
    (place.folder / "here/segments" / handle / "parcel/large.bin").write_bytes(LARGE)
    assert hand.work() is not None
    digest, target = digest_bytes(LARGE).hex, tmp_path / "large.bin"
    path = f"/segments/{handle}/parcel/large.bin"
    retried(lambda: hand.node.download(path, target, digest, len(LARGE), lambda: None))
    assert target.read_bytes() == LARGE
    retried(lambda: hand.node.upload(f"/segments/{handle}/outbox/{digest}", target, lambda: None))
    assert (place.folder / "here/segments" / handle / "arriving" / digest).read_bytes() == LARGE
    assert line.breaks >= 4, "the line never broke"
    assert len(line.seen) < 2 * 1.7 * len(LARGE), "it began anew"
    line.close()


def test_a_worker_killed_in_the_middle_and_started_again_brings_its_checkpoint_home(place: Place) -> None:
    backend = place.with_worker()
    handle = submit(backend, bundle_of(place, recipe=LONG, limits=OFTEN))
    until(backend, handle, lambda _: "is home" in place.said())
    place.workers[0].kill()
    place.workers[0].wait()
    place.start(place.url)
    status = to_the_end(backend, handle)
    assert status.state is SegmentState.FAILED or status.state is SegmentState.PAUSED, status
    backend.fetch(handle, place.folder / "home")
    assert any((place.folder / "home/checkpoint").glob("step-*"))
    assert to_the_end(backend, submit(backend, bundle_of(place, "next-0001"))).state is SegmentState.DONE


def test_a_worker_that_is_never_heard_of_again_is_given_up_and_its_checkpoint_is_home(place: Place) -> None:
    backend = place.with_worker()
    handle = submit(backend, bundle_of(place, recipe=LONG, limits=OFTEN))
    until(backend, handle, lambda _: "is home" in place.said())
    place.workers[0].kill()
    status = to_the_end_of_patience(backend, handle)
    assert status.failure is not None and status.failure.kind is FailureKind.INFRASTRUCTURE
    assert "silent" in status.failure.message and "came home" in status.failure.message
    backend.fetch(handle, place.folder / "home")
    assert any((place.folder / "home/checkpoint").glob("step-*"))


def test_a_segment_that_was_given_up_is_ended_by_its_worker_which_takes_the_next(place: Place) -> None:
    backend = place.with_worker()
    handle = submit(backend, bundle_of(place, recipe=LONG))
    until(backend, handle, is_running)
    os.kill(place.workers[0].pid, signal.SIGSTOP)
    lost = to_the_end_of_patience(backend, handle)
    assert lost.state is SegmentState.FAILED
    os.kill(place.workers[0].pid, signal.SIGCONT)
    wait_until(lambda: "given it up" in place.said(), place.said)
    assert to_the_end(backend, submit(backend, bundle_of(place, "next-0001"))).state is SegmentState.DONE
    assert backend.poll(handle) == lost


@pytest.mark.parametrize("waits_for", ["started", pytest.param("outbox", marks=pytest.mark.slow)])
def test_a_node_killed_while_a_worker_trains_finds_it_again_and_no_step_is_done_twice(
    place: Place, waits_for: str
) -> None:
    place.settings = {"alone": "1h"}
    backend = place.with_worker()
    made = bundle_of(place, recipe=Recipe(max_steps=STEPS), base=fake_base(step_s=0.03), lease_s=600, limits=OFTEN)
    backend.close()
    node = Path(__file__).with_name("node_process.py")
    settings = json.dumps({**SETTINGS, **place.settings, "port": place.port})
    words = [sys.executable, str(node), settings, str(place.folder / "here"), str(made.folder)]
    process = subprocess.Popen(words, start_new_session=True)
    segment = place.folder / "here/segments/run-0001"
    wait_until(lambda: (segment / waits_for).exists(), place.said)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: "tried again" in place.said() or "over, and home" in place.said(), place.said)
    again = place.backend()
    handle = submit(again, made)
    assert to_the_end(again, handle).state is SegmentState.DONE
    again.fetch(handle, place.folder / "home")
    assert digest_file(place.folder / "home/adapter/adapter_model.safetensors") == expected_adapter(CORPUS, STEPS)
    steps = [int(event["step"]) for event in again.events(handle, -1) if event["kind"] == "step"]
    assert steps == list(range(1, STEPS + 1))


def test_ctrl_c_on_a_worker_pauses_its_segment_and_brings_it_home(place: Place) -> None:
    backend = place.with_worker()
    handle = submit(backend, bundle_of(place, recipe=LONG))
    until(backend, handle, lambda _: bool(list(backend.events(handle, -1))))
    place.workers[0].send_signal(signal.SIGINT)
    assert to_the_end(backend, handle).state is SegmentState.PAUSED
    backend.fetch(handle, place.folder / "home")
    assert any((place.folder / "home/checkpoint").glob("step-*"))
    wait_until(lambda: place.workers[0].poll() is not None, place.said)
    assert place.workers[0].returncode == 0 and place.said().endswith("left\n")
    again = place.start(place.url)
    wait_until(lambda: "waiting for work" in place.said().partition("left\n")[2], place.said)
    again.send_signal(signal.SIGINT)
    wait_until(lambda: again.poll() is not None, place.said)
    assert again.returncode == 0


def test_a_segment_that_nobody_takes_ends_as_want_of_capacity(place: Place) -> None:
    place.settings = {"start_patience": "0s"}
    backend = place.backend()
    Hand(place)
    handle = submit(backend, bundle_of(place))
    status = to_the_end(backend, handle)
    assert status.failure is not None and status.failure.kind is FailureKind.CAPACITY
    assert "no worker" in status.failure.message


def test_two_workers_train_two_segments_at_once_and_a_third_waits(place: Place) -> None:
    backend = place.backend()
    one, other = Hand(place), Hand(place)
    for key in ("a-0001", "b-0001", "c-0001"):
        submit(backend, bundle_of(place, key))
    taken = [hand.work() for hand in (one, other)]
    assert [order and order["segment"] for order in taken] == ["a-0001", "b-0001"]
    assert backend.poll("c-0001").state is SegmentState.PENDING
    backend.cancel("c-0001")
    assert backend.poll("c-0001").state is SegmentState.CANCELLED
    with pytest.raises(Gone):
        one.node.ask("/segments/c-0001/outbox", {"box": "{}"})


def test_an_output_that_arrives_changed_is_not_kept(place: Place, tmp_path: Path) -> None:
    backend = place.backend()
    hand = Hand(place)
    handle = submit(backend, bundle_of(place))
    assert hand.work() is not None
    (tmp_path / "changed").write_bytes(b"something else")
    wrong = digest_bytes(b"what was meant").hex
    from elias_trainer.calls import Broken

    with pytest.raises(Broken):
        hand.node.upload(f"/segments/{handle}/outbox/{wrong}", tmp_path / "changed", lambda: None)
    arriving = place.folder / "here/segments" / handle / "arriving"
    assert not (arriving / wrong).exists() and not (arriving / f"{wrong}.part").exists()
    box = {"checkpoints": [], "files": {"result.json": f"sha256:{wrong}"}, "sealed": False}
    answer = hand.node.ask(f"/segments/{handle}/outbox", {"box": json.dumps(box)})
    assert answer == {"missing": [wrong]}
