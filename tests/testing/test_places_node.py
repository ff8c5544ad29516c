"""The real coordinator in a simulated world: a short version of the planner's bench and of its chaos."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from elias.domain.run import RunState
from elias.units import FREE, Money

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    """By name, as the programs in that folder import each other."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def test_a_week_is_the_same_twice_and_no_better_than_who_knows_the_future(bench, tmp_path):
    world, bound = bench("planner_world"), bench("planner_bound")
    lives = []
    for name in ("one", "two"):
        simulation = world.fresh(tmp_path / name, 2, runs=6, weeks=1)
        simulation.live().work()
        lives.append(world.outcomes(simulation))
        in_time = [o.spec.number for o in lives[-1] if o.is_in_time]
        best = bound.clairvoyant(simulation, {"ours": in_time})
        simulation.close()
    assert lives[0] == lives[1]
    spent = sum(o.spent.micro_usd for o in lives[0]) / 1e6
    assert in_time and len(in_time) <= best.in_time + 1e-6 and best.least["ours"] <= spent + 1e-6
    assert all(o.useful_hours <= o.hours for o in lives[0])


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bound_is_below_a_plan_that_is_told_everything(bench, seed, tmp_path):
    world, bound, foreknown = bench("planner_world"), bench("planner_bound"), bench("planner_foreknown")
    scarcity = bench("planner").scarcity_of(seed)
    simulation = world.fresh(tmp_path / "node", seed, runs=14, weeks=2, scarcity=scarcity)
    told = foreknown.foreknown(simulation)
    best = bound.clairvoyant(simulation, {"told": told.in_time})
    simulation.close()
    assert told.in_time and len(told.in_time) <= best.in_time + 1e-6
    assert best.least["told"] <= told.dollars + 1e-6
    assert scarcity == "roomy" or best.least["told"] > 0


def test_a_run_that_inference_would_drive_from_this_machine_is_in_time_elsewhere(bench, tmp_path):
    world = bench("planner_world")
    simulation = world.fresh(tmp_path / "node", 24, runs=12, weeks=2, allowed=("local", "sagemaker"))
    simulation.specs = [simulation.specs[9]]  # it was lost in this place's queue, its money unspent
    simulation.live().work()
    [found] = world.outcomes(simulation)
    simulation.close()
    assert found.is_in_time and found.spent <= found.spec.budget and len(set(found.places)) > 1


def test_a_tight_world_has_fewer_free_hours_than_are_wanted(bench):
    world, draw = bench("elias.testing.places.world"), bench("planner_draw")
    scarce = draw.SCARCITIES["tight"]
    tight = world.World(seed=1, weeks=8, busy=scarce.inference)
    spells = tight.inference()
    assert all(a.ends <= b.begins for a, b in pairwise(spells))
    kaggle = draw.make_places(tight, world.WorldClock(), scarcity=scarce)["kaggle"]
    assert {tight.quota(week, kaggle.least, kaggle.extra) for week in range(8)} == {30 * world.HOUR}


def test_a_run_without_money_spends_none_and_simple_rules_end(bench, tmp_path):
    world, policies = bench("planner_world"), bench("planner_policies")
    policy = next(policy for policy in policies.POLICIES if policy.name == "sagemaker only")
    simulation = world.fresh(tmp_path / "node", 2, runs=4, weeks=1, make=policy.coordinator(), allowed=policy.allowed)
    simulation.specs = [replace(s, budget=None if s.number == 0 else s.budget) for s in simulation.specs]
    simulation.live().work()
    found = world.outcomes(simulation)
    simulation.close()
    assert found[0].spent == FREE and found[0].state is RunState.FAILED
    assert any(o.is_in_time and o.spent > FREE for o in found[1:])


@pytest.mark.parametrize("seed", [3, 4])
def test_after_kills_lost_networks_clock_jumps_and_full_disks_no_step_and_no_cent_is_lost(bench, seed, tmp_path):
    chaos = bench("planner_chaos")
    life = chaos.Weeks(tmp_path / "node", seed, runs=8, weeks=1, calls_a_kill=60)
    life.live()
    found = chaos.violations(life.simulation, life.simulation.caps)
    states = {run.state for run in life.simulation.open.runs.list()}
    life.simulation.close()
    assert not found
    assert states == {RunState.DONE} and life.chaos.counts["kills"] > 5


def test_the_checks_of_the_chaos_see_a_lost_step_a_lost_cent_and_a_passed_cap(bench, tmp_path):
    chaos = bench("planner_chaos")
    life = chaos.Weeks(tmp_path / "node", 3, runs=3, weeks=1, calls_a_kill=1e9)
    sim = life.simulation
    sim.allowed = ("sagemaker",)
    sim.specs = [replace(spec, budget=Money.usd(12)) for spec in sim.specs]
    life.live()
    assert not chaos.violations(sim, sim.caps)
    key, account = next((a.claim.key, a) for a in sim.open.spend.accounts() if a.spent > FREE)
    caps = replace(sim.caps, day=replace(account.spent, micro_usd=1))
    assert any("the day holds" in line for line in chaos.violations(sim, caps))
    sim.open.spend.correct(account.claim, FREE, sim.clock.now(), "as if nothing had been billed")
    assert any(line.startswith(f"{key}: the place charges") for line in chaos.violations(sim, sim.caps))
    segment = next(s for spec in sim.specs for s in sim.open.runs.segments(spec.id) if s.end)
    with sim.open.runs._database.write() as connection:
        connection.exec_driver_sql("update segments set body = replace(body, '\"step\":', '\"step\":1')")
    assert any(segment.run in line and "come home" in line for line in chaos.violations(sim, sim.caps))
    sim.close()
