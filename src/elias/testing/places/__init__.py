"""Places that exist in a seed and on a simulated clock alone: what the planner is measured in. Nothing is trained.

`world` draws what happens (prices, interruptions, outages, quotas, hours of inference), `place` and its three kinds
keep the Backend port by that, `session` is a training as arithmetic over steps, `engine` lets the real coordinator
wait in simulated time. docs/planner-bench.md says by which processes all is drawn.
"""
