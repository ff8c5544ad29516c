"""`elias status`: what is in service and what is training, within a quarter of a second.

Standard library only: typer alone takes half of that time to import.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NoReturn

from elias.cli.node_client import NoNode, find_node
from elias.errors import UserError


class _Words(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, fix=f"{self.prog} --help")


def app(*, args: list[str], prog_name: str = "elias status", standalone_mode: bool = True) -> int:
    """Called as a typer app is."""
    parser = words(prog_name)
    try:
        wants_json = parser.parse_args(args).json
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    try:
        found = find_node().get("/api/status")
    except NoNode:
        found = {"node": None, "fix": "elias up"}
    if wants_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    elif found["node"] is None:
        print("no node is up; start it: elias up")
    else:
        print("\n".join(status_lines(found)))
    return 0


def words(prog_name: str) -> argparse.ArgumentParser:
    parser = _Words(prog=prog_name, description="What is in service, what is training.")
    parser.add_argument("--json", action="store_true", help="Answer in JSON, with the web API's fields.")
    return parser


def status_lines(found: dict[str, Any]) -> list[str]:
    """For people: the node, the model, the runs, and what is not as it should be."""
    lines = [f"node        {found['node']} at {found['url']}, up {_span(found['uptime_s'])}"]
    lines.append(f"in service  {_served(found['in_service']) or found['change'] or 'nothing yet'}")
    if found["standby"]:
        lines.append(f"standby     {_served(found['standby'])}")
    if found["change"] and found["in_service"]:
        lines.append(f"under way   {found['change']}")
    if found["restarts"]:
        lines.append(f"restarts    {found['restarts']} of the engine since the node is up")
    for run in found["runs"]:
        reason = f": {run['reason']}" if run["reason"] else ""
        lines.append(f"run         {run['id']} {run['state']} ({run['base']}, {run['strategy']}){reason}")
    if not found["runs"]:
        lines.append("runs        none under way")
    lines += elsewhere_lines(found)
    lines += [f"degraded    {_degraded(state)}" for state in found.get("degraded", [])]
    return lines + [f"note        {note}" for note in found["notes"]]


def elsewhere_lines(found: dict[str, Any]) -> list[str]:
    """What goes on, and may cost money, whether this node is up or not."""
    return [f"elsewhere   {_elsewhere(row)}" for row in found.get("elsewhere", [])]


def _degraded(state: dict[str, Any]) -> str:
    name = f"{state['name']} {state['about']}".rstrip()
    until = f" (looked for at {state['until'][:19]}Z)" if state["until"] else ""
    since = f"since {state['since'][:19]}Z: {state['cause']}"
    return f"{name} {since}; still works: {state['still_works']}; ends when {state['leaves']}{until}"


def _elsewhere(row: dict[str, Any]) -> str:
    cost = f", ${row['hourly'] / 1_000_000:.2f} an hour" if row["hourly"] and row["kind"] == "job" else ""
    until = f", until {row['ends_by'][:16]}Z at the latest" if row["ends_by"] else ""
    owner = f" - no run owns it: {row['orphaned']}" if row["orphaned"] else f" ({row['segment'] or row['run']})"
    detail = f", {row['detail']}" if row["detail"] else ""
    return f"{row['kind']} {row['name']} at {row['place']}{detail}{cost}{until}{owner}"


def _served(model: dict[str, Any] | None) -> str | None:
    if model is None:
        return None
    state = "" if model["answers"] else ", being started again"
    return f"{model['model']} ({model['engine']}, deployment {model['deployment']}, process {model['process']}{state})"


def _span(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
