"""What keeps a worker from taking a segment, in words."""

from __future__ import annotations

from elias.adapters.backends.found_machine import Found


def lacks(found: Found, *, is_sealed: bool) -> str | None:
    """None where it can take one."""
    name = found["name"]
    if found["is_old"]:
        return f"{name} has Python {found['python']}, and 3.11 is needed"
    if missing := [package for package in found["lacks"] if package != "pyrage"]:
        return f"{name} has no {', '.join(missing)}: pip install {' '.join(missing)} there, then join again"
    if is_sealed and not found.get("recipient"):
        return f"private data travels sealed, and {name} has no pyrage: pip install pyrage there, then join again"
    if is_sealed and not found["is_private"]:
        return f"private data goes over https only, and {name} joined over plain http"
    return None
