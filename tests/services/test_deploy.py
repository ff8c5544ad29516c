"""A new model takes over between two requests, or not at all; and what was in service stays in service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from elias.adapters.clock import SystemClock
from elias.adapters.engines.ask import ask
from elias.adapters.stores.database import open_database
from elias.adapters.stores.models import SqlModelStore
from elias.domain.artifact import Artifact
from elias.domain.deployment import Deployment
from elias.domain.label import Label
from elias.domain.verdict import GateRule, Verdict
from elias.errors import BadSignature, EngineError, GateRefused, NotFound, Refused
from elias.ports.stores import ModelStore
from elias.services.deploy import DeployRequest, DeployService
from elias.services.history import standing
from elias.services.keep_alive import KeepAlive
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.testing.echo_engine import EchoEngine
from elias.testing.waiting import wait_until
from elias_trainer.contract import Digest, Method, digest_bytes

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class World:
    service: DeployService
    engine: EchoEngine
    models: ModelStore
    policy: Policy
    damaged: set[Digest]
    room: list[bool]

    def answer(self) -> str:
        """Of whatever is in service, through the route."""
        running = self.service.route.enter()
        assert running is not None
        try:
            return ask(running.endpoint, "hi")
        finally:
            self.service.route.leave(running)

    def artifact(self, name: str, *, accepted: bool | None = True, rival: Digest | None = None) -> Digest:
        """Made and, unless `accepted` is None, judged."""
        digest = digest_bytes(name.encode())
        made = Artifact(digest=digest, run=name, base_reference="small", base_digest=digest, method=Method.LORA,
                        corpus=digest, label=Label.PUBLIC, created_at=NOW, bytes=1, receipt=digest)  # fmt: skip
        self.models.add_artifact(made)
        if accepted is not None:
            self.judge(digest, accepted=accepted, rival=rival)
        return digest

    def judge(self, digest: Digest, *, accepted: bool = True, rival: Digest | None = None) -> None:
        count = len(self.models.verdicts())
        verdict = Verdict(id=f"v{count}", candidate=digest, rival=rival, corpus=digest, accepted=accepted,
                          reasons=("better than the base at 95%: it is not",), comparisons=(), rule=GateRule(),
                          judged_at=NOW + timedelta(seconds=count))  # fmt: skip
        self.models.add_verdict(verdict)

    def deploy(self, artifact: Digest | None) -> Deployment:
        return self.service.deploy(DeployRequest(artifact=artifact))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = open_database(None, tmp_path / "elias.db")
    models, engine = SqlModelStore(database, SystemClock()), EchoEngine()
    damaged: set[Digest] = set()
    room = [True]

    def verify(digest: Digest) -> Path:
        if digest in damaged:
            raise BadSignature(f"{digest.short} is not what was signed", fix="get it again")
        return tmp_path

    means = Means(
        models=models, engines={"echo": engine}, verify=verify, ask=ask, has_room=lambda: room[0], logs=tmp_path
    )
    policy = Policy(default_bases=("small",), restart_after=(timedelta(0),), drain=timedelta(minutes=10))
    service = DeployService(means, policy, Route())
    yield World(service=service, engine=engine, models=models, policy=policy, damaged=damaged, room=room)
    service.close()
    database.close()


def test_with_nothing_deployed_the_base_serves_and_the_node_says_so(world: World) -> None:
    world.service.start()
    assert world.answer() == "small: hi"
    assert world.service.notice == "nothing was deployed yet: the base small serves"
    assert [d.why for d in world.models.deployments()] == ["start"]


def test_a_default_base_that_cannot_be_served_gives_way_to_the_next(world: World) -> None:
    policy = replace(world.policy, default_bases=("unknown", "small"))
    service = DeployService(world.service._means, policy, Route())
    service.start()
    assert "no engine can serve unknown" in str(service.notice)
    assert [(d.base, d.why) for d in world.models.deployments()] == [("small", "start")]
    service.close()


def test_an_accepted_model_takes_over_and_the_old_one_waits_in_standby(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    deployment = world.deploy(artifact)
    assert world.answer() == f"small+{artifact.short}: hi"
    assert world.models.deployments()[0] == deployment
    assert world.service.standby is not None and world.service.standby.name == "small"


@pytest.mark.parametrize("accepted", [None, False])
def test_a_model_without_an_accepting_verdict_is_refused_with_the_command_that_helps(
    world: World, accepted: bool | None
) -> None:
    world.service.start()
    artifact = world.artifact("a", accepted=accepted)
    with pytest.raises(GateRefused) as refusal:
        world.deploy(artifact)
    assert artifact.short in refusal.value.fix
    assert refusal.value.kept == "the model in service stays"
    assert world.answer() == "small: hi"
    assert world.engine.started == ["small"]


def test_past_the_gate_a_refused_model_goes_into_service(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a", accepted=False)
    world.service.deploy(DeployRequest(artifact=artifact, past_gate=True))
    assert world.answer() == f"small+{artifact.short}: hi"


def test_a_verdict_against_another_model_than_the_one_in_service_does_not_count(world: World) -> None:
    world.service.start()
    world.deploy(world.artifact("a"))
    with pytest.raises(GateRefused, match="was judged against the bare base"):
        world.deploy(world.artifact("b"))


def test_the_newest_verdict_counts(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a", accepted=False)
    world.judge(artifact)
    world.deploy(artifact)
    assert world.answer() == f"small+{artifact.short}: hi"


def test_a_model_that_does_not_start_changes_nothing(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    world.engine.failing.add(f"small+{artifact.short}")
    with pytest.raises(EngineError, match="does not start"):
        world.deploy(artifact)
    assert world.answer() == "small: hi"
    assert len(world.models.deployments()) == 1


def test_a_model_that_answers_the_canary_with_nothing_changes_nothing(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    world.engine.mute.add(f"small+{artifact.short}")
    with pytest.raises(EngineError, match="answered the canary with nothing"):
        world.deploy(artifact)
    assert world.answer() == "small: hi"
    assert len(world.models.deployments()) == 1


def test_a_damaged_model_is_not_started(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    world.damaged.add(artifact)
    with pytest.raises(BadSignature):
        world.deploy(artifact)
    assert world.engine.started == ["small"]


def test_an_unknown_engine_is_named_with_those_there_are(world: World) -> None:
    world.service.start()
    with pytest.raises(NotFound) as error:
        world.service.deploy(DeployRequest(artifact=None, engine="none"))
    assert error.value.fix == "use one of: echo"


def test_a_base_that_no_engine_serves_is_refused_with_each_reason(world: World) -> None:
    world.service.start()
    with pytest.raises(EngineError, match=r"no engine can serve unknown \(echo: it is unknown\)"):
        world.service.deploy(DeployRequest(artifact=None, base="unknown"))


def test_a_rollback_takes_the_standby_and_starts_nothing(world: World) -> None:
    world.service.start()
    world.deploy(world.artifact("a"))
    started = list(world.engine.started)
    deployment = world.service.rollback()
    assert world.answer() == "small: hi"
    assert deployment.why == "rollback" and deployment.artifact is None
    assert world.engine.started == started


def test_without_room_for_a_standby_a_rollback_starts_the_model_again(world: World) -> None:
    world.room[0] = False
    world.service.start()
    world.deploy(world.artifact("a"))
    assert world.service.standby is None
    world.service.rollback()
    assert world.answer() == "small: hi"


def test_a_standby_goes_when_its_memory_is_wanted(world: World) -> None:
    world.service.start()
    world.deploy(world.artifact("a"))
    world.room[0] = False
    world.service.tend_standby()
    assert world.service.standby is None


def test_rolling_back_twice_goes_back_twice_and_then_there_is_nothing_before(world: World) -> None:
    world.service.start()
    first = world.artifact("a")
    world.deploy(first)
    world.deploy(world.artifact("b", rival=first))
    world.service.rollback()
    assert world.answer() == f"small+{first.short}: hi"
    world.service.rollback()
    assert world.answer() == "small: hi"
    with pytest.raises(Refused, match="no model was in service before"):
        world.service.rollback()


def test_a_stream_that_began_before_the_change_is_finished_by_its_engine(world: World) -> None:
    world.room[0] = False
    world.engine.pause_s = 0.02
    world.service.start()
    running = world.service.route.enter()
    assert running is not None
    question = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "w " * 20}]}
    key = {"Authorization": f"Bearer {running.endpoint.api_key}"}
    url = f"{running.endpoint.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=question, headers=key) as stream:
        lines = stream.iter_lines()
        next(lines)
        world.deploy(world.artifact("a"))
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert running.is_alive()
    world.service.route.leave(running)
    wait_until(lambda: not running.is_alive())


def test_at_the_next_start_the_newest_deployment_serves(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    world.deploy(artifact)
    again = restarted(world)
    again.service.start()
    assert again.answer() == f"small+{artifact.short}: hi"
    assert len(world.models.deployments()) == 2
    again.service.close()


def test_a_newest_deployment_that_does_not_start_gives_way_and_the_node_says_so(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    world.deploy(artifact)
    world.damaged.add(artifact)
    again = restarted(world)
    again.service.start()
    assert again.answer() == "small: hi"
    assert "is not what was signed; small serves in its place" in str(again.service.notice)
    assert world.models.deployments()[0].why == "rollback"
    again.service.close()


def test_an_engine_that_ends_is_started_again(world: World) -> None:
    keeper = KeepAlive(world.service, world.policy, SystemClock())
    keeper.start()
    first = wait_for_service(world)
    world.engine.kill(first)
    world.service.route.on_trouble()
    assert wait_for_service(world, other_than=first)
    assert world.answer() == "small: hi"
    assert keeper.restarts == 1
    wait_until(lambda: "was started again" in str(world.service.notice))
    keeper.stop()


def test_a_model_that_keeps_ending_gives_way_to_the_one_before_it(world: World) -> None:
    keeper = KeepAlive(world.service, world.policy, SystemClock())
    keeper.start()
    wait_for_service(world)
    artifact = world.artifact("a")
    name = f"small+{artifact.short}"
    world.engine.dying.add(name)
    world.deploy(artifact)
    wait_until(lambda: world.models.deployments()[0].why == "rollback")
    wait_until(lambda: "kept ending" in str(world.service.notice))
    assert world.answer() == "small: hi"
    assert name in str(world.service.notice)
    keeper.stop()


def test_without_a_model_before_it_a_dying_one_is_started_for_ever(world: World) -> None:
    world.engine.dying.add("small")
    keeper = KeepAlive(world.service, world.policy, SystemClock())
    keeper.start()
    wait_until(lambda: keeper.restarts > 4)
    keeper.stop()


def test_deploying_the_same_model_again_is_one_deployment_and_keeps_the_way_back(world: World) -> None:
    world.service.start()
    artifact = world.artifact("a")
    first = world.deploy(artifact)
    assert world.deploy(artifact) == first
    world.service.rollback()
    assert world.answer() == "small: hi"


def test_the_way_back_forgets_what_was_rolled_back_from() -> None:
    def deployed(number: int, artifact: str, why: str) -> Deployment:
        digest = digest_bytes(artifact.encode())
        return Deployment(id=number, base="b", artifact=digest, engine="e", deployed_at=NOW, why=why)

    steps = [("a", "deploy"), ("b", "deploy"), ("a", "rollback"), ("c", "deploy")]
    history = [deployed(number, name, why) for number, (name, why) in enumerate(steps, 1)]
    assert [d.id for d in standing(history[::-1])] == [4, 3]


def restarted(world: World) -> World:
    """The same node after its process had ended."""
    service = DeployService(world.service._means, world.policy, Route())
    return replace(world, service=service)


def wait_for_service(world: World, other_than: object = None) -> object:
    def endpoint() -> object:
        running = world.service.route.enter()
        if running is None:
            return None
        world.service.route.leave(running)
        return running.endpoint

    wait_until(lambda: endpoint() not in (None, other_than))
    return endpoint()
