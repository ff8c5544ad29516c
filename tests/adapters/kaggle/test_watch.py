"""How often Kaggle is asked, what makes it be asked at once, and what several at once may take."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.kaggle.watch import Watch
from elias.domain.run import SegmentState
from elias.ports.backend import Status
from elias.testing.fake_trainer import fake_base
from elias.testing.waiting import wait_until
from elias_trainer.contract import EVENT_PREFIX, Recipe
from elias_trainer.parcel import NOTE_PREFIX

ENTRY = Entry(key="run-0001", dataset="data", kernel="kernel", seconds=60, gpus=1, parcel="", pushed_at="x")
RUNNING = Status(state=SegmentState.RUNNING, note="Kaggle says RUNNING")
PENDING = Status(state=SegmentState.PENDING, note="Kaggle says QUEUED")


class Log:
    """A log that a test writes as it goes on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.has_ended = threading.Event()

    def __call__(self, kernel: str) -> Iterator[str]:
        sent = 0
        while not (self.has_ended.wait(0.005) and sent == len(self.lines)):
            while sent < len(self.lines):
                yield self.lines[sent]
                sent += 1


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.has_ended.set()


class Asker:
    """A node that asks whenever it is time to, on a clock of its own."""

    def __init__(self, log: Log) -> None:
        self.now = 0.0
        self.watch = Watch(KaggleSettings(poll_every=timedelta(seconds=20)), log, lambda: self.now)

    def asks_within(self, seconds: float, status: Status) -> int:
        asks, end = 0, self.now + seconds
        while self.now < end:
            asks += self.ask(status)
            self.now += 0.5
        return asks

    def ask(self, status: Status, entry: Entry = ENTRY) -> bool:
        news = self.watch.news(entry)
        if self.watch.known(entry) is not None:
            return False
        self.watch.heard(entry, status, news)
        return True


def test_a_session_that_runs_is_asked_after_ever_more_seldom_while_its_log_is_open(log: Log) -> None:
    asker = Asker(log)
    assert asker.watch.log(ENTRY) is not None
    asker.ask(RUNNING)
    assert asker.asks_within(60, RUNNING) == 2
    asker.asks_within(600, RUNNING)
    assert asker.asks_within(1800, RUNNING) == 10, "every three minutes"


def test_without_an_open_log_it_is_asked_after_as_often_as_the_user_wants(log: Log) -> None:
    asker = Asker(log)
    asker.ask(RUNNING)
    assert asker.asks_within(601, RUNNING) == 30


def test_what_waits_is_asked_after_soon_and_then_as_often_as_the_user_wants(log: Log) -> None:
    asker = Asker(log)
    asker.ask(PENDING)
    assert asker.asks_within(20, PENDING) == 3
    asker.asks_within(40, PENDING)
    assert asker.asks_within(600, PENDING) <= 30


@pytest.mark.parametrize("news", ["note", "end"])
def test_what_the_log_shows_is_asked_after_at_once(log: Log, news: str) -> None:
    asker = Asker(log)
    live = asker.watch.log(ENTRY)
    assert live is not None
    asker.ask(RUNNING)
    log.lines.append(EVENT_PREFIX + '{"kind": "step", "seq": 0}')
    wait_until(lambda: len(list(live.events(-1))) == 1)
    assert not asker.ask(RUNNING), "an event is no news of the session"
    if news == "note":
        log.lines.append(NOTE_PREFIX + '{"kind": "opened"}')
        wait_until(lambda: len(live.notes) == 1)
    else:
        log.has_ended.set()
        wait_until(lambda: live.has_ended)
    assert asker.ask(RUNNING) and not asker.ask(RUNNING), "once"


def test_a_log_that_is_closed_without_an_end_is_read_on(log: Log) -> None:
    opened: list[int] = []

    def closed_twice(kernel: str) -> Iterator[str]:
        opened.append(len(log.lines))
        log.lines.append(EVENT_PREFIX + f'{{"kind": "step", "seq": {len(opened)}}}')
        yield from log.lines
        log.has_ended.wait(0 if len(opened) < 3 else 600)

    settings = KaggleSettings(retry_wait=timedelta(milliseconds=1))
    live = Watch(settings, closed_twice).log(ENTRY)
    assert live is not None
    try:
        wait_until(lambda: len(list(live.events(-1))) == 3)
        assert not live.has_ended and live.is_live
    finally:
        live.stop()  # or it would open the log again and again beside all later tests


def test_a_cancelled_segment_is_looked_at_at_once_and_then_no_more_often_than_others(log: Log) -> None:
    asker = Asker(log)
    asker.ask(RUNNING)
    unwanted = Entry(key="run-0001", dataset="data", kernel="kernel", seconds=60, gpus=1, parcel="", unwanted=True)
    assert asker.ask(RUNNING, unwanted) and not asker.ask(RUNNING, unwanted)


def test_events_come_once_and_in_order_however_often_the_log_begins_anew(log: Log) -> None:
    live = Asker(log).watch.log(ENTRY)
    assert live is not None
    log.lines += [EVENT_PREFIX + f'{{"kind": "step", "seq": {number}}}' for number in (0, 1, 1, 0, 2)]
    log.lines += ["plain", EVENT_PREFIX + '{"cut in', NOTE_PREFIX + "nor this"]
    wait_until(lambda: live.rest == ["plain"] and live.notes == [])
    assert [event["seq"] for event in live.events(-1)] == [0, 1, 2]
    assert [event["seq"] for event in live.events(1)] == [2]


def test_what_another_process_writes_is_read_and_what_nobody_wrote_is_remembered(tmp_path: Path) -> None:
    ledger, other = Ledger(tmp_path), Ledger(tmp_path)
    ledger.put(ENTRY)
    wait_until(lambda: ledger.get(ENTRY.key) is ledger.get(ENTRY.key))
    for number in range(50):
        other.change(ENTRY.key, uploads=number)
        found = ledger.get(ENTRY.key)
        assert found is not None and found.uploads == number
        assert [entry.uploads for entry in ledger.entries()] == [number]


def test_of_two_that_are_ready_at_the_same_moment_one_takes_the_last_session(
    make_backend: Callable[..., KaggleBackend], place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Ledger.entries

    def counted(ledger: Ledger) -> Iterator[Entry]:
        yield from list(count(ledger))
        time.sleep(0.1)  # what was counted is old by now, were it not for the lock

    monkeypatch.setattr(Ledger, "entries", counted)
    place.emulated.disk.configure(gpu_seconds_a_week=1.0)
    backends = [make_backend(sessions_at_once=1) for _ in range(2)]
    keys = ["first-0001", "second-0001"]
    for place.backend, place.key in zip(backends, keys, strict=True):
        place.submit(recipe=Recipe(max_steps=100_000), base=fake_base(step_s=0.02))
        place.until(lambda status: "waits until" in (status.note or ""))
    place.emulated.disk.configure(gpu_seconds_a_week=3600.0)
    barrier = threading.Barrier(2)

    def poll(backend: KaggleBackend, key: str) -> None:
        for _ in range(4):
            barrier.wait(600)
            backend.poll(key)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(poll, backends, keys))
    assert place.pushes() == 1
    for backend, key in zip(backends, keys, strict=True):
        backend.cancel(key)


def test_a_segment_that_waits_for_a_session_asks_kaggle_nothing(place: Any) -> None:
    for number in (1, 2):
        place.key = f"busy{number}-0001"
        place.submit(recipe=Recipe(max_steps=100_000), base=fake_base(step_s=0.02))
        place.running()
    place.key = "third-0001"
    place.submit()
    place.until(lambda status: "it starts when one ends" in (status.note or ""))
    before = len(place.emulated.disk.requests())
    for _ in range(10):
        place.backend.poll(place.key)
    assert [r["call"] for r in place.emulated.disk.requests()[before:] if r["call"] != "logs"] == []
