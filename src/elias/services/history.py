"""Room 7. What the list of deployments says, and whether a candidate may join it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from elias.domain.deployment import Deployment
from elias.domain.verdict import Verdict
from elias.errors import GateRefused
from elias_trainer.contract import Digest

ROLLBACK = "rollback"
START = "start"
DEPLOY = "deploy"

Model = tuple[str, Digest | None, str]
"""Base, artifact and engine: what makes two deployments the same."""


def model_of(deployment: Deployment) -> Model:
    return deployment.base, deployment.artifact, deployment.engine


def standing(history: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """The one in service first, then those that rolling back would bring back, one after the other.

    `history` is newest first. A deployment lies on top of the one before it; a rollback takes the top one away.
    """
    stack: list[Deployment] = []
    for deployment in reversed(history):
        if deployment.why == ROLLBACK and len(stack) > 1:
            stack.pop()
            while len(stack) > 1 and model_of(stack[-1]) != model_of(deployment):
                stack.pop()
            stack[-1] = deployment
        elif not stack or model_of(stack[-1]) != model_of(deployment):
            stack.append(deployment)
    return tuple(reversed(stack))


def check_gate(candidate: Digest, in_service: Digest | None, verdicts: Sequence[Verdict]) -> None:
    """Raises GateRefused unless the newest verdict on `candidate` accepts it, against what is in service now."""
    judge = f"elias model judge {candidate.short}"
    kept = "the model in service stays"
    newest = next((verdict for verdict in verdicts if verdict.candidate == candidate), None)
    if newest is None:
        raise GateRefused(f"model {candidate.short} was never judged", fix=judge, kept=kept)
    if not newest.accepted:
        reasons = "; ".join(newest.reasons)
        fix = f"train on, or put it in service all the same: elias model deploy {candidate.short} --force"
        raise GateRefused(f"model {candidate.short} was refused: {reasons}", fix=fix, kept=kept)
    if newest.rule.rival == "in_service" and newest.rival != in_service and candidate != in_service:
        rival = newest.rival.short if newest.rival else "the bare base"
        now = in_service.short if in_service else "the bare base"
        what = f"model {candidate.short} was judged against {rival}, but {now} is in service"
        raise GateRefused(what, fix=judge, kept=kept)
