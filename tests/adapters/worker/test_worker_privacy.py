"""Who gets in, what each sees, and what of private data is readable on the way and over there."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.backends.worker.settings import WorkerSettings
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import ConfigError, LabelForbids, NotFound
from elias.testing.bundles import CORPUS, need_of
from elias.testing.fake_trainer import fake_base
from elias.testing.waiting import wait_until
from elias_trainer.calls import Dismissed, Gone, Node, NotTaken
from elias_trainer.contract import Recipe
from tests.adapters.files_under import files_with, named
from tests.adapters.worker.by_hand import BadLine, Hand, own_certificate, written_in
from tests.adapters.worker.conftest import LONG, Place, bundle_of, is_running, submit, to_the_end, until


def join(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "elias_trainer", "join", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_a_token_is_good_once_and_only_its_worker_may_say_it_again(place: Place, tmp_path: Path) -> None:
    place.backend()
    token = place.token()
    first = Hand(place, token=token)
    first.join(token)  # its answer was lost, say
    second = join(place.url, token, "--folder", str(tmp_path / "second"))
    assert second.returncode == 2 and "used before" in second.stderr and "elias worker token" in second.stderr
    first_name, first.worker = first.worker, "w-" + "0" * 10
    with pytest.raises(NotTaken, match="used before"):
        first.join(token)  # the same holder under another name
    assert [one.id for one in place.made[0].register.known()] == [first_name]
    with pytest.raises(NotTaken, match="nobody here knows"):
        Hand(place, token="made-up")


def test_a_token_that_is_too_old_lets_nobody_in(place: Place) -> None:
    backend = place.backend()
    place.token()
    old, _ = backend.register.new_token(timedelta(0))
    with pytest.raises(NotTaken, match="too old"):
        Hand(place, token=old)


def test_tokens_and_credentials_lie_here_as_hashes_only(place: Place) -> None:
    place.backend()
    token = place.token()
    hand = Hand(place, token=token)
    kept = written_in(place.folder / "here")
    assert hand.proof.encode() in kept
    assert token.encode() not in kept and str(hand.node.credential).partition(".")[2].encode() not in kept


def test_a_worker_sees_its_own_bundle_and_no_other(place: Place) -> None:
    backend = place.backend()
    owner, other = Hand(place), Hand(place)
    handle = submit(backend, bundle_of(place))
    order = owner.work()
    assert order is not None and order["segment"] == handle and other.work() is None
    report = {"state": "ended", "code": 0, "problem": None, "events": {"from": 0, "text": ""}}
    report["log"] = report["events"]
    digest = "0" * 64
    assert owner.node.call("GET", f"/segments/{handle}/parcel/corpus.jsonl")[1] == CORPUS
    for key in (handle, "never-0001", "..", "%2e%2e"):
        with pytest.raises(Gone):
            other.node.call("GET", f"/segments/{key}/parcel/corpus.jsonl")
        with pytest.raises(Gone):
            other.node.ask(f"/segments/{key}/report", report)
        with pytest.raises(Gone):
            other.node.ask(f"/segments/{key}/outbox", {"box": "{}"})
        with pytest.raises(Gone):
            other.node.call("PUT", f"/segments/{key}/outbox/{digest}", b"x", headers={"Elias-From": 0, "Elias-Size": 1})
    for name in ("../order.json", "%2e%2e%2forder.json", "..%2fsegment.key", "order.json"):
        with pytest.raises(Gone):
            owner.node.call("GET", f"/segments/{handle}/parcel/{name}")
    assert {path.name for path in (place.folder / "here/segments").iterdir()} == {handle}
    assert backend.poll(handle).state is SegmentState.PENDING


@pytest.mark.parametrize("credential", [None, "w-0123456789.guess", "nonsense", "w-../../x.y"])
def test_who_did_not_join_is_told_nothing(place: Place, credential: str | None) -> None:
    backend = place.backend()
    hand = Hand(place)
    handle = submit(backend, bundle_of(place))
    assert hand.work() is not None
    stranger = place.line(credential=credential)
    for method, path in (("POST", "/work"), ("GET", f"/segments/{handle}/parcel/job.json"), ("POST", "/leave")):
        with pytest.raises(Dismissed):
            stranger.call(method, path, b"{}")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"machine":7}', b"\xff\xfe", b"x" * (5 << 20)])
def test_what_no_worker_says_is_refused_and_the_door_stays_open(place: Place, body: bytes) -> None:
    place.backend()
    hand = Hand(place)
    with pytest.raises(NotTaken):
        hand.node.call("POST", "/work", body)
    assert hand.work() is None


def test_a_worker_may_not_fill_the_disk_here(place: Place) -> None:
    place.settings = {"most_gib": 1}
    backend = place.backend()
    hand = Hand(place)
    handle = submit(backend, bundle_of(place))
    assert hand.work() is not None
    place_of = {"Elias-From": "0", "Elias-Size": str(2 << 30)}
    with pytest.raises(NotTaken, match="1 GiB"):
        hand.node.call("PUT", f"/segments/{handle}/outbox/{'0' * 64}", b"x", headers=place_of)


def test_private_data_is_sealed_on_the_way_and_nothing_readable_stays_there(place: Place) -> None:
    backend = place.backend()
    token, line = place.token(), BadLine(place.port)
    place.start(line.url, token)
    wait_until(lambda: len(backend.register.known()) == 1, place.said)
    hold = place.folder / "hold"
    hold.touch()
    private = bundle_of(place, label=Label.PRIVATE, recipe=Recipe(max_steps=300), base=fake_base(held=(hold, 100)))
    handle = submit(backend, private)
    until(backend, handle, is_running)
    assert all("/work/" in str(path) for path in files_with(place.there, CORPUS.strip()))
    assert named(place.there, "corpus.jsonl.age")
    hold.unlink()
    assert to_the_end(backend, handle).state is SegmentState.DONE
    backend.fetch(handle, place.folder / "home")
    assert (place.folder / "home/adapter/adapter_model.safetensors").exists()
    wait_until(lambda: "over, and home" in place.said(), place.said)
    wait_until(lambda: not list(place.there.glob("*/segments/*")), place.said)
    assert not named(place.there, "*.age") and b"AGE-SECRET-KEY" not in written_in(place.there)
    assert b"corpus.jsonl.age" in line.seen
    assert CORPUS.strip() not in line.seen and b"AGE-SECRET-KEY" not in line.seen
    line.close()


def test_secret_data_goes_to_no_worker(place: Place) -> None:
    backend = place.backend()
    hand = Hand(place)
    made = bundle_of(place, label=Label.SECRET)
    with pytest.raises(LabelForbids):
        backend.submit("run-0001", made, backend.offers(need_of(made))[0])
    assert hand.work() is None and backend.find("run-0001") is None


def test_a_worker_without_pyrage_or_https_gets_no_private_data(place: Place) -> None:
    backend = place.backend()
    hand = Hand(place)
    made = bundle_of(place, label=Label.PRIVATE)
    refused = backend.offers(need_of(made))[0]
    assert refused.refused is not None and "pyrage" in refused.refused
    backend.submit("run-0001", made, refused)
    assert hand.work() is None
    hand.machine |= {"is_private": False, "recipient": "age1"}
    assert hand.work() is None
    why = backend.offers(need_of(made))[0].refused
    assert why is not None and "https" in why


def test_plain_http_to_another_machine_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    answer = join("http://192.0.2.1:4142", "token", "--folder", str(tmp_path))
    assert answer.returncode == 2 and "--insecure" in answer.stderr and list(tmp_path.iterdir()) == []
    assert not Node("http://192.0.2.1:4142", is_insecure_meant=True).is_private
    assert Node("https://node.example").is_private
    wrong = join("node.example", "token", "--folder", str(tmp_path))
    assert wrong.returncode == 2 and "https://" in wrong.stderr


def test_behind_what_ends_tls_a_worker_joins_where_the_certificate_is_trusted_and_not_where_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = place.backend()
    context, trusted = own_certificate(place.folder)
    line, token = BadLine(place.port, tls=context), place.token()
    stranger = join(line.url, token, "--folder", str(place.folder / "stranger"))
    assert stranger.returncode == 2 and "does not trust" in stranger.stderr
    assert backend.register.known() == []
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    place.start(line.url, token)
    wait_until(lambda: len(backend.register.known()) == 1, place.said)
    assert to_the_end(backend, submit(backend, bundle_of(place))).state is SegmentState.DONE
    assert backend.register.known()[0].machine["is_private"]
    line.close()


def test_a_worker_that_is_forgotten_brings_its_work_home_says_so_and_ends(place: Place) -> None:
    backend = place.with_worker()
    worker = backend.register.known()[0].id
    handle = submit(backend, bundle_of(place, recipe=LONG))
    until(backend, handle, lambda _: bool(list(backend.events(handle, -1))))
    backend.register.dismiss(worker)
    assert backend.offers(need_of(bundle_of(place)))[0].refused is not None
    assert to_the_end(backend, handle).state is SegmentState.PAUSED
    wait_until(lambda: place.workers[0].poll() is not None, place.said)
    assert place.workers[0].returncode == 0 and "wants this worker no more" in place.said()
    assert backend.register.known() == []
    with pytest.raises(NotFound):
        backend.register.dismiss(worker)


def test_who_was_forgotten_does_not_come_in_again_with_its_old_token(place: Place) -> None:
    backend = place.backend()
    token = place.token()
    hand = Hand(place, token=token)
    backend.register.drop(hand.worker)
    with pytest.raises(NotTaken, match="forgotten"):
        hand.join(token)
    with pytest.raises(Dismissed):
        hand.work()


def test_where_nobody_joined_the_place_says_what_to_type(place: Place) -> None:
    backend = place.backend()
    backend.listen()
    assert not backend.has_credentials() and not (place.folder / "here/serve.lock").exists()
    with pytest.raises(ConfigError) as raised:
        backend.offers(need_of(bundle_of(place)))
    assert "elias worker token" in raised.value.fix


def test_a_worker_that_left_is_not_on_offer(place: Place) -> None:
    backend = place.with_worker()
    need = need_of(bundle_of(place))
    assert backend.offers(need)[0].refused is None
    wait_until(lambda: "waiting for work" in place.said(), place.said)
    os.kill(place.workers[0].pid, signal.SIGTERM)
    wait_until(lambda: place.workers[0].poll() is not None, place.said)
    assert place.workers[0].returncode == 0
    place.settings = {"seen_within": "0s"}
    why = place.backend().offers(need)[0].refused
    assert why is not None and "has called since" in why


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"port": 70000}, "port"),
        ({"port": True}, "port"),
        ({"most_gib": 0}, "most_gib"),
        ({"alone": "1h", "patience": "5m"}, "patience is less than alone"),
        ({"colour": "red"}, "no setting 'colour'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(raw: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        WorkerSettings.read(raw)
