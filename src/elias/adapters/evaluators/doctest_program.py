"""Runs inside the sandbox: executes a module and then each doctest's source, and says what came out of each.

It does not know what is expected, and judges nothing: whoever started it compares. So a body that ends the process,
changes `doctest`, or prints that all is well gains nothing by it; an answer that is not given is a wrong one.
The text that really runs has `REQUEST = …` and the path to the packages put before this file's own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
import types

MOST_CHARACTERS = 20_000
"""Of one doctest's output; what exceeds it is dropped."""


class Capture(io.StringIO):
    def write(self, text: str) -> int:
        room = MOST_CHARACTERS - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)


def main(request: dict[str, object]) -> None:
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    module = types.ModuleType("module")
    sys.modules["module"] = module
    if run(str(request["module"]), "exec", module.__dict__)["error"] is not None:
        return
    sources = request["sources"]
    assert isinstance(sources, list)
    names = dict(module.__dict__)
    for source in sources:
        channel.write(json.dumps(run(source, "single", names)) + "\n")
        channel.flush()


def run(source: str, mode: str, names: dict[str, object]) -> dict[str, str | None]:
    """What it wrote, and the last line of its traceback if it raised."""
    written = Capture()
    try:
        with contextlib.redirect_stdout(written):
            exec(compile(source, f"<{mode}>", mode, dont_inherit=True), names)  # this is what the sandbox is for
    except BaseException as error:  # noqa: BLE001 - a doctest may expect any of them, SystemExit too
        return {"output": written.getvalue(), "error": traceback.format_exception_only(type(error), error)[-1]}
    return {"output": written.getvalue(), "error": None}


if __name__ == "__main__":
    main(REQUEST)  # type: ignore[name-defined]  # noqa: F821 - put before this text
