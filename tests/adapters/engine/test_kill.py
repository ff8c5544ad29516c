"""Engines that are killed with -9, and what the next ones make of it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from elias.testing.postgres import emptied
from elias.testing.waiting import PATIENCE_S, wait_until

PROGRAM = Path(__file__).with_name("node_process.py")
STEPS = 12
HELD = [["run-1", str(step), "attic"] for step in range(4)]
"""What the diary holds once the attic is held."""


class Node:
    """An engine process, spoken to through its stdin."""

    def __init__(self, home: Path, name: str, url: str, steps: int) -> None:
        command = [sys.executable, "-W", "error", str(PROGRAM), str(home), name, url, str(steps)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.greeting = self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, verb: str, key: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {key}\n")
        self.process.stdin.flush()
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> int:
        """Closing its stdin stops it."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


StartNode = Callable[..., Node]


@pytest.fixture
def start_node() -> Iterator[StartNode]:
    with contextlib.ExitStack() as at_the_end:

        def start(home: Path, name: str = "attic", url: str = "", steps: int = 12) -> Node:
            node = Node(home, name, url, steps)
            at_the_end.enter_context(node.process)  # closes its pipes
            at_the_end.callback(node.process.kill)
            return node

        yield start


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else emptied(request.getfixturevalue("postgres"))


def held(home: Path) -> Path:
    """A file beside this home: while it is there, the home's node stays in the middle of a step."""
    hold = home.with_name(f"hold-{home.name}")
    hold.parent.mkdir(exist_ok=True)
    hold.touch()
    return hold


def forgotten(server: str, node: str) -> bool:
    """Whether the server has noticed that the node, which was killed, is gone."""
    of_node = "locktype = 'advisory' AND objid = (SELECT hashtext(%s)::bigint & 4294967295)::oid"
    with psycopg.connect(server) as connection:
        return connection.execute(f"SELECT 1 FROM pg_locks WHERE {of_node}", [node]).fetchone() is None


def diary(home: Path) -> list[list[str]]:
    file = home.parent / "diary"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def has_ended(home: Path, *keys: str) -> bool:
    ended = {line[0] for line in diary(home) if line[1] == "end"}
    return ended >= set(keys)


def kill_and_restart(start_node: StartNode, home: Path, url: str, *, steps: int, kills: int) -> None:
    chance = random.Random(7)
    node = start_node(home, url=url, steps=steps)
    node.ask("start", "run-1")
    for kill in range(kills):
        seen = steps * (kill + 1) // (kills + 1)
        wait_until(lambda seen=seen: len(diary(home)) >= seen)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.15))  # somewhere in a step, between two, or in a sleep
        node.kill()
        node = start_node(home, url=url, steps=steps)
    wait_until(lambda: has_ended(home, "run-1"))
    assert node.end() == 0
    numbers = [int(line[1]) for line in diary(home) if line[1] != "end"]
    assert sorted(set(numbers)) == list(range(steps)), "all steps ran, and none went wrong"
    assert numbers == sorted(numbers), "once the next step has begun, none before it runs again"
    assert len(numbers) <= steps + kills, "a kill repeats at most the step that it broke off"


def test_a_killed_engine_goes_on_where_it_was(start_node: StartNode, tmp_path: Path, url: str) -> None:
    kill_and_restart(start_node, tmp_path / "home", url, steps=16, kills=3)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(start_node: StartNode, tmp_path: Path, url: str) -> None:
    kill_and_restart(start_node, tmp_path / "home", url, steps=100, kills=20)


def test_a_second_process_of_the_same_home_is_refused_and_named(
    start_node: StartNode, tmp_path: Path, url: str
) -> None:
    first = start_node(tmp_path / "home", url=url)
    assert first.greeting == "launched"
    second = start_node(tmp_path / "home", url=url)
    assert second.greeting.startswith("Refused")
    assert str(first.process.pid) in second.greeting
    assert "elias" in second.greeting.split("|")[1]
    assert second.end() == 4


def test_on_postgresql_a_second_node_of_the_same_name_is_refused(
    start_node: StartNode, tmp_path: Path, postgres: str
) -> None:
    url = emptied(postgres)
    first = start_node(tmp_path / "a", url=url)
    second = start_node(tmp_path / "b", url=url)
    assert second.greeting.startswith("Refused")
    first.kill()
    wait_until(lambda: forgotten(postgres, "attic"))
    assert start_node(tmp_path / "b", url=url).greeting == "launched"


def test_two_nodes_share_a_queue_and_each_key_runs_once(start_node: StartNode, tmp_path: Path, postgres: str) -> None:
    url, keys = emptied(postgres), [f"run-{n}" for n in range(12)]
    nodes = [start_node(tmp_path / name, name, url, 3) for name in ("attic", "cellar")]
    for n, key in enumerate(keys):
        assert nodes[n % 2].ask("start", key) == "ok"
        assert nodes[(n + 1) % 2].ask("start", key) == "ok"
    wait_until(lambda: has_ended(tmp_path / "attic", *keys))
    lines = diary(tmp_path / "attic")
    assert sorted(line[:2] for line in lines) == sorted([key, step] for key in keys for step in ("0", "1", "2", "end"))
    assert all(len({line[2] for line in lines if line[0] == key}) == 1 for key in keys), "and on one node"
    assert [node.end() for node in nodes] == [0, 0]


def test_a_dead_nodes_work_waits_for_it_until_another_adopts_it(
    start_node: StartNode, tmp_path: Path, postgres: str
) -> None:
    url, home = emptied(postgres), tmp_path / "attic"
    hold = held(home)
    attic = start_node(home, "attic", url, STEPS)
    attic.ask("start", "run-1")
    wait_until(lambda: diary(home) == HELD)
    cellar = start_node(tmp_path / "cellar", "cellar", url, STEPS)
    assert cellar.ask("adopt", "run-1").startswith("Refused"), "the attic lives"
    assert cellar.ask("adopt", "run-7").startswith("NotFound")
    attic.kill()
    wait_until(lambda: forgotten(postgres, "attic"))
    cellar.ask("start", "run-2")
    wait_until(lambda: has_ended(home, "run-2"))
    assert {line[2] for line in diary(home) if line[0] == "run-1"} == {"attic"}
    assert cellar.ask("adopt", "run-1") == "ok"
    wait_until(lambda: has_ended(home, "run-1"))
    lines = [line for line in diary(home) if line[0] == "run-1" and line[1] != "end"]
    numbers = [int(line[1]) for line in lines]
    assert numbers == sorted(numbers)
    assert len(numbers) <= STEPS + 1
    assert lines[-1][2] == "cellar"
    assert hold.exists()
    assert cellar.end() == 0


def test_in_sqlite_a_node_that_was_renamed_goes_on_with_its_work(start_node: StartNode, tmp_path: Path) -> None:
    home = tmp_path / "home"
    old = start_node(home, "old-name")
    old.ask("start", "run-1")
    wait_until(lambda: len(diary(home)) >= 3)
    old.kill()
    start_node(home, "new-name")
    wait_until(lambda: has_ended(home, "run-1"))
    assert diary(home)[-1] == ["run-1", "end", "new-name"]


def test_a_node_whose_lock_the_server_forgot_lets_go_of_what_another_has_adopted(
    start_node: StartNode, tmp_path: Path, postgres: str
) -> None:
    url, home = emptied(postgres), tmp_path / "attic"
    hold = held(home)
    attic = start_node(home, "attic", url, STEPS)
    attic.ask("start", "run-1")
    wait_until(lambda: diary(home) == HELD)
    cellar = start_node(tmp_path / "cellar", "cellar", url, STEPS)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
            "AND objid = (SELECT hashtext('attic')::bigint & 4294967295)::oid"
        )
    wait_until(lambda: cellar.ask("adopt", "run-1") == "ok")
    wait_until(lambda: ["run-1", "4", "cellar"] in diary(home))
    hold.unlink()
    wait_until(lambda: has_ended(home, "run-1"))
    lines = [line for line in diary(home) if line[0] == "run-1"]
    by = [line[2] for line in lines]
    assert by == sorted(by), "the attic lives, and does not one step once the cellar has begun"
    assert lines[-1] == ["run-1", "end", "cellar"]
    assert [attic.end(), cellar.end()] == [0, 0]
