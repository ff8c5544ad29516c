"""The durable engine on DBOS Transact.

How it is used, and why:
- A workflow is registered under its name and started under a key; its DBOS id is the key, and `key#2`, `key#3`, … when
  it is put in the queue once more. Starting an id twice is starting it once.
- Work begins from the queue `elias`, where any node takes it; what a node has begun it finishes itself, since its files
  lie there: at launch its own unfinished work goes into its own queue, `elias.<node>`. `adopt` moves a dead node's.
- Each workflow at work holds a thread, also while it sleeps: `workers` at once in each of the two queues.
- Cancelling is the stores' business (`Wish`), never DBOS's, whose cancel would act at the next step only.
- No Conductor, no auto-upgrade, no sharding: they are proprietary and need a network.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from dbos import DBOS, WorkflowStatus
from dbos import error as dbos_error

from elias.adapters.engine.at_work import AtWork
from elias.adapters.engine.lock import FileLock, NodeNameLock, engine_is_taken
from elias.adapters.engine.recorded import JsonSerializer
from elias.adapters.engine.steps import DbosSteps
from elias.adapters.engine.system_database import APPLICATION, SCHEMA, SystemDatabase, quiet
from elias.errors import NotFound, Refused
from elias.ports.durable import Workflow
from elias.units import Clock

APPLICATION_VERSION = "1"
"""DBOS carries work on only under the version that began it. Bump it when what this module records changes its meaning,
and only in a release that says to let all runs end first; a workflow whose own steps change gets a new name instead."""

LOCK_FILE = "engine.lock"
STOP_S = 60.0
"""How long `stop` waits for the steps that are under way."""
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    home: Path
    node: str
    """The executor's identity: what it has begun it carries on under this name."""
    url: str | None = None
    """PostgreSQL's; None is SQLite in `home`."""
    workers: int = 8
    """Workflows at work at once, in each of the two queues."""
    poll_s: float = 0.5
    """How often a queue is looked at."""


class DbosEngine:
    """One at work in a process, since DBOS is: `launch` refuses a second; `start` and `restart` go with any number."""

    _process = threading.Lock()

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._log: Any = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        self._workflows: dict[str, Workflow] = {}
        self._file_lock = FileLock(settings.home / LOCK_FILE)
        self._name_lock: NodeNameLock | None = None
        self._opened: SystemDatabase | None = None
        self._opening = threading.Lock()
        self._at_work = AtWork()
        self._is_launched = False

    def register(self, name: str, workflow: Workflow) -> None:
        if self._is_launched:
            raise ValueError(f"{name!r} is registered after launch")
        self._workflows[name] = workflow

    def launch(self) -> None:
        self._file_lock.take()
        if not self._process.acquire(blocking=False):
            self._let_go()
            raise engine_is_taken("another one, in this very process")
        try:
            self._take_name()
            self._at_work = AtWork()
            self._take_up_own_work()
            with self._database().translated():
                self._launch_dbos()
        except BaseException:
            self._process.release()
            self._let_go()
            raise
        self._is_launched = True

    def start(self, name: str, key: str) -> None:
        """Of no effect on a key that has ended, too: `restart` puts that in the queue again."""
        self._check(name, key)
        if not self._attempts(key):
            self._enqueue(name, key, key)

    def restart(self, name: str, key: str, wait: timedelta = timedelta(0)) -> None:
        """As `start` for a key that is not there."""
        self._check(name, key)
        deadline = time.monotonic() + wait.total_seconds()
        while (attempts := self._attempts(key)) and attempts[-1].status not in _ENDED:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        self._enqueue(name, key, f"{key}#{len(attempts) + 1}" if attempts else key)

    def adopt(self, key: str) -> None:
        """The port's `CanAdopt`."""
        attempts = self._attempts(key)
        if not attempts:
            raise NotFound(f"nothing was ever started as {key!r}", fix="see them all: elias run list")
        last = attempts[-1]
        owner = _owner(last)
        if last.status in _ENDED or owner is None or owner == self._settings.node:
            return
        database = self._database()
        lock = NodeNameLock(database.engine, owner) if database.is_shared else None
        with database.translated():
            if lock is not None and not lock.take():
                raise Refused(f"the node {owner!r} lives and carries {key} out", fix=f"stop it there first, {owner!r}")
            try:
                database.client.resume_workflow(last.workflow_id, queue_name=self._own_queue)
            finally:
                if lock is not None:
                    lock.release()

    def stop(self) -> None:
        """Waits for the steps under way, not for sleeps. Of no effect when not launched.

        Raises WorldError when a step goes on and on: the lock is then kept until the process ends.
        """
        if self._is_launched:
            self._at_work.stop(STOP_S)
            self._wait_for_records()
            DBOS.destroy(destroy_registry=True)
            self._is_launched = False
            self._process.release()
        self._let_go()

    @property
    def _own_queue(self) -> str:
        return f"{APPLICATION}.{self._settings.node}"

    def _database(self) -> SystemDatabase:
        with self._opening:
            if self._opened is None:
                self._opened = SystemDatabase(self._settings.home, self._settings.url)
            return self._opened

    def _take_name(self) -> None:
        database = self._database()
        if database.is_shared:
            lock = NodeNameLock(database.engine, self._settings.node)
            with database.translated():
                if not lock.take():
                    raise engine_is_taken(f"another process is the node {self._settings.node!r} in {database.place}")
            self._name_lock = lock

    def _take_up_own_work(self) -> None:
        """In SQLite all unfinished work is this node's, even if it was called something else when it began."""
        database = self._database()
        owner = self._settings.node if database.is_shared else None
        with database.translated():
            begun = database.client.list_workflows(
                status="PENDING",
                executor_id=owner,
                application_name=APPLICATION,
                load_input=False,
                load_output=False,
            )
            for workflow in begun:
                database.client.resume_workflow(workflow.workflow_id, queue_name=self._own_queue)
            for queue in (APPLICATION, self._own_queue):
                database.client.register_queue(
                    queue,
                    worker_concurrency=self._settings.workers,
                    polling_interval_sec=self._settings.poll_s,
                    application_name=APPLICATION,
                )

    def _launch_dbos(self) -> None:
        quiet()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_engine": self._database().engine,
                "application_version": APPLICATION_VERSION,
                "executor_id": self._settings.node,
                "serializer": JsonSerializer(),
                "enable_otlp": False,
                "use_listen_notify": False,
                "notification_listener_polling_interval_sec": 0.25,
                "log_level": "WARNING",
                "dbos_system_schema": SCHEMA,
            }
        )
        try:
            for name, workflow in self._workflows.items():
                DBOS.workflow(name=name, max_recovery_attempts=None)(self._body(name, workflow))
            DBOS.listen_queues([APPLICATION, self._own_queue])
            DBOS.launch()
        except BaseException:
            DBOS.destroy(destroy_registry=True)
            raise

    def _body(self, name: str, workflow: Workflow) -> Callable[[str], None]:
        at_work = self._at_work

        def body(key: str) -> None:
            workflow_id = DBOS.workflow_id or key
            with at_work.one(workflow_id):
                try:
                    workflow(DbosSteps(at_work, self._clock, lambda: self._is_ours(workflow_id)), key)
                except Exception:
                    self._log.error("engine.workflow_failed", workflow=name, key=key, exc_info=True)
                    raise

        return body

    def _is_ours(self, workflow_id: str) -> bool:
        """Whether no other node has adopted it; one can while this one lives, when the server forgot our lock."""
        database = self._database()
        if not database.is_shared:
            return True
        with database.translated():
            found = database.client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
        return not found or _owner(found[0]) in (None, self._settings.node)

    def _check(self, name: str, key: str) -> None:
        if not re.fullmatch(r"[^\s#%]+", key):
            raise ValueError(f"a key has no space, # or %: {key!r}")
        if self._is_launched and name not in self._workflows:
            raise ValueError(f"no workflow is registered as {name!r}")

    def _attempts(self, key: str) -> list[WorkflowStatus]:
        """Of this key, from the first on."""
        database = self._database()
        with database.translated():
            found = database.client.list_workflows(
                workflow_id_prefix=key, application_name=APPLICATION, load_input=False, load_output=False
            )
        numbered = {_number(status.workflow_id, key): status for status in found}
        return [numbered[number] for number in sorted(n for n in numbered if n is not None)]

    def _enqueue(self, name: str, key: str, workflow_id: str) -> None:
        database = self._database()
        with database.translated():
            try:
                database.client.enqueue(
                    {
                        "workflow_name": name,
                        "queue_name": APPLICATION,
                        "workflow_id": workflow_id,
                        "app_version": APPLICATION_VERSION,
                    },
                    key,
                )
            except dbos_error.DBOSConflictingWorkflowError:
                return  # another process put the same id in the queue at this very moment

    def _wait_for_records(self) -> None:
        """A workflow that returned is recorded as ended a moment later; destroying DBOS before that repeats its end."""
        deadline = time.monotonic() + 5.0
        database = self._database()
        while time.monotonic() < deadline and self._at_work.ended:
            with database.translated():
                pending = database.client.list_workflows(
                    workflow_ids=list(self._at_work.ended), status="PENDING", load_input=False, load_output=False
                )
            if not pending:
                return
            time.sleep(0.02)

    def _let_go(self) -> None:
        if self._name_lock is not None:
            self._name_lock.release()
            self._name_lock = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._file_lock.release()


def _number(workflow_id: str, key: str) -> int | None:
    """1 for the key itself, n for `key#n`; None for the id of another key that begins alike."""
    rest = workflow_id.removeprefix(key)
    if rest == "":
        return 1
    return int(rest[1:]) if re.fullmatch(r"#\d+", rest) else None


def _owner(status: WorkflowStatus) -> str | None:
    """The node that has begun it or will take it up again; None when any may."""
    if status.status == "PENDING":
        return status.executor_id
    queue = status.queue_name or ""
    return queue.removeprefix(f"{APPLICATION}.") if queue.startswith(f"{APPLICATION}.") else None
