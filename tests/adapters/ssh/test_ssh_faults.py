"""What may happen to the connection, to the node and to the other machine, over a real SSH server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from elias.adapters.backends.ssh import SshBackend
from elias.domain.run import SegmentState
from elias.errors import BackendError, ConfigError, VerificationError
from elias.ports.backend import Bundle, Status
from elias.testing.bundles import CORPUS, Wanted, make_bundle, need_of
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.waiting import PATIENCE_S, wait_until
from elias_trainer.contract import FailureKind, Limits, Recipe, digest_file
from tests.adapters.ssh.conftest import Server, make_backend, make_server, settings_for

KEY = "run-0001"
STEPS = 60
LONG = Recipe(max_steps=100_000)


@pytest.fixture
def backend(server: Server, tmp_path: Path, there: Path) -> Iterator[SshBackend]:
    made = make_backend(server, tmp_path / "here", there, alone="1h")
    yield made
    made.close()


def bundle_of(tmp_path: Path, key: str = KEY, **wanted: object) -> Bundle:
    return make_bundle(tmp_path / "bundles" / key, key, Wanted(**wanted))


def submit(backend: SshBackend, bundle: Bundle) -> str:
    return backend.submit(bundle.job.segment, bundle, backend.offers(need_of(bundle))[0])


def until(backend: SshBackend, handle: str, is_so: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so(status := backend.poll(handle)):
        assert time.monotonic() < deadline, status
        assert not status.state.is_final, status
        backend.renew(handle)
        time.sleep(0.05)
    return status


def to_the_end(backend: SshBackend, handle: str) -> Status:
    return until(backend, handle, lambda status: status.state.is_final)


def steps_of(backend: SshBackend, handle: str) -> list[int]:
    return [int(event["step"]) for event in backend.events(handle, -1) if event["kind"] == "step"]


def is_running(status: Status) -> bool:
    return status.state is SegmentState.RUNNING


def trainers_in(there: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if any(str(there) in part for part in p.info["cmdline"] or ())]


def test_a_trainer_trains_on_while_its_machine_is_out_of_reach(
    backend: SshBackend, server: Server, tmp_path: Path, there: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    base = fake_base(step_s=0.03, held=(hold, STEPS // 2))
    handle = submit(backend, bundle_of(tmp_path, recipe=Recipe(max_steps=STEPS), base=base, lease_s=PATIENCE_S))
    until(backend, handle, is_running)
    server.stop()
    lost_at = time.time()
    lost = until(backend, handle, lambda status: status.note is not None)
    assert lost.state is SegmentState.RUNNING and lost.started_at and "out of reach" in (lost.note or "")
    (lease,) = there.glob(f"nodes/*/{KEY}/work/in/lease")
    wait_until(lambda: lease.stat().st_mtime > lost_at)  # the supervisor there renews it
    hold.unlink()
    server.start()
    assert to_the_end(backend, handle).state is SegmentState.DONE
    backend.fetch(handle, tmp_path / "home")
    assert digest_file(tmp_path / "home/adapter/adapter_model.safetensors") == expected_adapter(CORPUS, STEPS)
    assert steps_of(backend, handle) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("after_s", [0.6, *(pytest.param(after, marks=pytest.mark.slow) for after in (1.2, 2.2, 3.4))])
def test_a_node_killed_at_any_moment_finds_its_segment_again_and_no_step_is_done_twice(
    server: Server, tmp_path: Path, there: Path, after_s: float
) -> None:
    made = bundle_of(tmp_path, recipe=Recipe(max_steps=STEPS), base=fake_base(step_s=0.02), lease_s=PATIENCE_S)
    settings = json.dumps(settings_for(server, there))
    node = Path(__file__).with_name("node_process.py")
    words = [sys.executable, str(node), settings, str(tmp_path / "here"), str(made.folder)]
    process = subprocess.Popen(words, start_new_session=True)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    backend = make_backend(server, tmp_path / "here", there)
    handle = submit(backend, made)
    assert to_the_end(backend, handle).state is SegmentState.DONE
    backend.fetch(handle, tmp_path / "home")
    assert digest_file(tmp_path / "home/adapter/adapter_model.safetensors") == expected_adapter(CORPUS, STEPS)
    assert steps_of(backend, handle) == list(range(1, STEPS + 1))
    backend.close()


def test_a_machine_that_restarts_loses_no_finished_checkpoint(backend: SshBackend, tmp_path: Path, there: Path) -> None:
    made = bundle_of(tmp_path, recipe=LONG, limits=Limits(checkpoint_every_s=0.05))
    handle = submit(backend, made)

    def has_one(status: Status) -> bool:
        backend.fetch(handle, tmp_path / "home")
        return any((tmp_path / "home/checkpoint").glob("step-*"))

    until(backend, handle, has_one)
    who = json.loads(next(there.glob(f"nodes/*/{KEY}/who.json")).read_bytes())
    supervisor = psutil.Process(who["pid"]).parent()
    assert supervisor is not None
    for process in [supervisor, *supervisor.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it ended with the one before it
            process.kill()
    status = to_the_end(backend, handle)
    assert status.failure is not None and status.failure.kind is FailureKind.INFRASTRUCTURE
    assert "vanished" in status.failure.message and "came home" in status.failure.message
    backend.fetch(handle, tmp_path / "home")
    assert any((tmp_path / "home/checkpoint").glob("step-*"))


@pytest.mark.slow
def test_an_upload_goes_on_where_it_broke_off(backend: SshBackend, tmp_path: Path, there: Path) -> None:
    handle = submit(backend, bundle_of(tmp_path))
    parcel = tmp_path / "here/segments" / handle / "parcel"
    trainer = (parcel / "trainer.bin").read_bytes()
    hexes = {name: digest.hex for name, digest in digests_of(parcel).items()}
    incoming = there / "nodes" / backend._node / handle / "incoming"
    incoming.mkdir(parents=True)
    half = incoming / hexes["trainer.bin"]
    half.write_bytes(trainer[: len(trainer) // 2])
    until(backend, handle, is_running)
    assert (there / "objects" / half.name).read_bytes() == trainer
    assert to_the_end(backend, handle).state is SegmentState.DONE


def test_what_arrived_broken_is_sent_again(backend: SshBackend, tmp_path: Path, there: Path) -> None:
    """That it does not fit together also shows that an upload goes on after what is there."""
    handle = submit(backend, bundle_of(tmp_path))
    parcel = tmp_path / "here/segments" / handle / "parcel"
    incoming = there / "nodes" / backend._node / handle / "incoming"
    incoming.mkdir(parents=True)
    (incoming / digests_of(parcel)["trainer.bin"].hex).write_bytes(b"something else")
    first = backend.poll(handle)
    assert first.state is SegmentState.PENDING and "trainer.bin did not arrive whole" in (first.note or "")
    assert to_the_end(backend, handle).state is SegmentState.DONE


@pytest.mark.slow
def test_what_is_there_already_is_not_sent_again(backend: SshBackend, tmp_path: Path, there: Path) -> None:
    assert to_the_end(backend, submit(backend, bundle_of(tmp_path))).state is SegmentState.DONE
    before = {path: path.stat().st_ino for path in (there / "objects").glob("*")}
    assert to_the_end(backend, submit(backend, bundle_of(tmp_path, "run-0002"))).state is SegmentState.DONE
    after = {path: path.stat().st_ino for path in (there / "objects").glob("*")}
    assert before.items() <= after.items()
    assert len(after) - len(before) == 2, "of the second segment only its job and its list are new"


@pytest.mark.slow
def test_a_checkpoint_damaged_there_is_noticed_and_the_one_before_comes_home(
    backend: SshBackend, tmp_path: Path, there: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    wanted = {"base": fake_base(die_at=9, held=(hold, 0)), "limits": Limits(checkpoint_every_s=0)}
    handle = submit(backend, bundle_of(tmp_path, **wanted))
    until(backend, handle, is_running)
    hold.unlink()  # nobody asks from here on, until it is over
    outbox = next(there.glob(f"nodes/*/{KEY}")) / "outbox"
    wait_until(lambda: not trainers_in(there))
    newest = max(outbox.glob("checkpoint-*.pack"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    status = to_the_end(backend, handle)
    assert status.failure is not None and newest.name in status.failure.message
    backend.fetch(handle, tmp_path / "home")
    assert [path.name for path in (tmp_path / "home/checkpoint").iterdir()] == ["step-00000007"]


@pytest.mark.slow
def test_a_second_segment_waits_for_the_first_and_can_be_taken_out_of_the_queue(
    backend: SshBackend, tmp_path: Path
) -> None:
    first = submit(backend, bundle_of(tmp_path, recipe=LONG))
    until(backend, first, is_running)
    second = submit(backend, bundle_of(tmp_path, "other-0001"))
    status = backend.poll(second)
    assert status.state is SegmentState.PENDING and "another segment trains" in (status.note or "")
    backend.cancel(second)
    assert backend.poll(second).state is SegmentState.CANCELLED
    third = submit(backend, bundle_of(tmp_path, "third-0001"))
    backend.cancel(first)
    assert to_the_end(backend, first).state is SegmentState.CANCELLED
    assert to_the_end(backend, third).state is SegmentState.DONE


def test_a_forgotten_segment_leaves_nothing_of_it_there(backend: SshBackend, tmp_path: Path, there: Path) -> None:
    handle = submit(backend, bundle_of(tmp_path))
    ended = to_the_end(backend, handle)
    backend.forget(handle)
    assert list(there.glob("nodes/*/*")) == [] and backend.poll(handle) == ended


def test_a_call_under_which_the_kept_connection_ends_is_made_once_more(
    server: Server, tmp_path: Path, there: Path
) -> None:
    """ssh itself says not one word then."""
    slow = tmp_path / "slow_python"
    slow.write_text(
        '#!/bin/sh\nmkdir "$0.begun" && while [ -d "$0.begun" ]; do sleep 0.1; done && exit 3\n'
        f'exec {sys.executable} "$@"\n'
    )
    slow.chmod(0o700)
    begun = Path(f"{slow}.begun")
    backend = make_backend(server, tmp_path / "here", there, python=str(slow))
    with ThreadPoolExecutor(1) as pool:
        offers = pool.submit(backend.offers, need_of(bundle_of(tmp_path)))
        try:
            wait_until(begun.exists)
            backend.close()
            assert offers.result()[0].memory_bytes, "the first call would have ended with 3"
        finally:
            begun.rmdir()


def test_a_machine_whose_key_is_unknown_is_sent_nothing(backend: SshBackend, server: Server, tmp_path: Path) -> None:
    (server.folder / "known_hosts").unlink()
    with pytest.raises(ConfigError, match="known hosts") as raised:
        backend.offers(need_of(bundle_of(tmp_path)))
    assert "ssh -F" in raised.value.fix and not (server.folder / "known_hosts").exists()


def test_a_machine_that_shows_another_key_is_sent_nothing(
    server: Server, tmp_path: Path, backend: SshBackend, there: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = make_server("asyncssh", tmp_path / "other").known.split()[1:]
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
    with pytest.raises(VerificationError, match="another key") as raised:
        backend.offers(need_of(bundle_of(tmp_path)))
    assert "ssh-keygen -R" in raised.value.fix and not there.exists()


def test_a_machine_that_lets_no_key_in_says_what_to_do(server: Server, tmp_path: Path, backend: SshBackend) -> None:
    (server.folder / "authorized_keys").write_text("")
    server.stop()
    server.start()
    with pytest.raises(ConfigError, match="lets no key of yours in") as raised:
        backend.offers(need_of(bundle_of(tmp_path)))
    assert "ssh-copy-id" in raised.value.fix


def test_an_interpreter_that_is_not_there_is_named(server: Server, tmp_path: Path, there: Path) -> None:
    backend = make_backend(server, tmp_path / "here", there, python="~/no/such/python")
    with pytest.raises(ConfigError, match="has no ~/no/such/python"):
        backend.offers(need_of(bundle_of(tmp_path)))
    backend.close()


def test_a_machine_that_was_seen_once_is_offered_as_refused_while_it_is_out_of_reach(
    server: Server, tmp_path: Path, there: Path, backend: SshBackend
) -> None:
    need = need_of(bundle_of(tmp_path))
    seen = backend.offers(need)[0]
    assert seen.refused is None
    server.stop()
    again = make_backend(server, tmp_path / "here", there).offers(need)[0]
    assert again.refused is not None and "out of reach" in again.refused
    assert again.memory_bytes == seen.memory_bytes
    never = make_backend(server, tmp_path / "elsewhere", there)
    with pytest.raises(BackendError, match="out of reach"):
        never.offers(need)


def digests_of(parcel: Path) -> dict[str, object]:
    from elias_trainer.parcel import Parcel

    return dict(Parcel.read(parcel).files)
