"""`elias model judge`: whether a model is better than the one in service, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table, say

if TYPE_CHECKING:
    from elias.domain.verdict import Comparison, Verdict

REFUSED_EXIT_CODE = 4

Model = Annotated[str, typer.Argument(help="`latest`, a digest or the beginning of one.")]
CorpusName = Annotated[str, typer.Option("--corpus", help="Whose held-out examples judge: `latest` or a digest.")]
Evaluators = Annotated[str | None, typer.Option("--evaluators", help="Such as heldout_loss,doctests.")]
Against = Annotated[str | None, typer.Option("--against", help="`in_service` or `base`; else as configured.")]


def add_to(app: typer.Typer) -> None:
    app.command("judge")(judge_model)


def judge_model(
    model: Model = "latest",
    corpus: CorpusName = "latest",
    evaluators: Evaluators = None,
    against: Against = None,
    json: Json = False,
) -> None:
    """Measure a model beside the one in service and the base on held-out examples; exit 4 when the gate refuses it."""
    from elias.config import load
    from elias.wiring.judge import open_judge

    given = {"evaluators": evaluators, "gate.rival": against}
    config = load({name: value for name, value in given.items() if value is not None})
    with open_judge(config, say) as judge:
        verdict = judge.judge(model, corpus)
    if json:
        emit_json(verdict)
    else:
        _show(verdict)
    if not verdict.accepted:
        raise typer.Exit(REFUSED_EXIT_CODE)


def _show(verdict: Verdict) -> None:
    columns = (
        "metric",
        "group",
        "beside",
        "candidate",
        "rival",
        "difference",
        f"{verdict.rule.level:.0%} interval",
        "n",
    )
    emit_table(columns, map(_row, verdict.comparisons), empty="nothing was measured")
    print()
    for name, note in verdict.details.items():
        print(f"{name:<15} {note}")
    print()
    for reason in verdict.reasons:
        print(reason)
    print(f"{verdict.candidate.short} is {'accepted' if verdict.accepted else 'refused'} (verdict {verdict.id})")


def _row(comparison: Comparison) -> tuple[object, ...]:
    interval = comparison.difference
    return (
        comparison.metric,
        comparison.group,
        "the base" if comparison.rival == "base" else "in service",
        f"{comparison.candidate_value:.4f}",
        f"{comparison.rival_value:.4f}",
        f"{comparison.candidate_value - comparison.rival_value:+.4f}",
        "too few examples" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}",
        comparison.examples,
    )
