"""The planner: pure functions from runs, places and rules to plans. docs/decisions tells how and why."""
