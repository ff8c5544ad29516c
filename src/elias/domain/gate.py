"""Room 6. The gate: whether what was measured lets a candidate into service. Pure; each rule answers with a line."""

from __future__ import annotations

from collections.abc import Sequence

from elias.domain.statistics import examples_needed
from elias.domain.verdict import Comparison, GateRule


def pass_gate(rule: GateRule, rival: str, comparisons: Sequence[Comparison]) -> tuple[bool, tuple[str, ...]]:
    """Accepted or not, and a line for each rule: what it wanted, what it found.

    `rival` is `base` or `in_service`. What was not measured, or on too few examples, is never better.
    """
    relevant = [c for c in comparisons if c.metric == rule.metric and c.rival == rival]
    answers = [_better(rule, rival, next((c for c in relevant if c.group == "all"), None))]
    if rule.no_worse_in_any_stage:
        answers += [_no_worse(rule, c) for c in relevant if c.group.startswith("stage:")]
    return all(passed for passed, _ in answers), tuple(line for _, line in answers)


def is_better(comparison: Comparison) -> bool:
    """The whole interval lies on the good side of zero."""
    interval = comparison.difference
    if interval is None:
        return False
    return interval.high < 0 if comparison.lower_is_better else interval.low > 0


def is_worse(comparison: Comparison) -> bool:
    """The whole interval lies on the bad side of zero."""
    interval = comparison.difference
    if interval is None:
        return False
    return interval.low > 0 if comparison.lower_is_better else interval.high < 0


def _better(rule: GateRule, rival: str, found: Comparison | None) -> tuple[bool, str]:
    wanted = f"better than {_spoken(rival)} in {rule.metric} at {rule.level:.0%}"
    if found is None:
        return False, f"refused: wanted {wanted}; {rule.metric} was not measured"
    passed = is_better(found)
    return passed, f"{'passed' if passed else 'refused'}: wanted {wanted}; found {_found(rule, found)}"


def _no_worse(rule: GateRule, found: Comparison) -> tuple[bool, str]:
    passed = not is_worse(found)
    wanted = f"no worse in stage {found.group.removeprefix('stage:')}"
    return passed, f"{'passed' if passed else 'refused'}: wanted {wanted}; found {_found(rule, found)}"


def _found(rule: GateRule, comparison: Comparison) -> str:
    values = f"{comparison.candidate_value:.4f} against {comparison.rival_value:.4f}"
    count = f"{comparison.examples} example{'' if comparison.examples == 1 else 's'}"
    if comparison.difference is None:
        return f"{values} on {count}, too few to tell (it takes {examples_needed(rule.level)})"
    low, high = comparison.difference.low, comparison.difference.high
    return f"{values} on {count}, a difference between {low:+.4f} and {high:+.4f}"


def _spoken(rival: str) -> str:
    return "the model in service" if rival == "in_service" else "the base"
