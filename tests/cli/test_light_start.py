"""`--help` and `status` answer at once, since they import next to nothing; the clock itself is read by bench/cli.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("typer", "rich", "pydantic", "httpx", "sqlalchemy", "dbos", "numpy", "scipy", "torch", "psutil", "structlog")
LISTS = "import json, sys; json.dump(sorted(sys.modules), sys.stderr)"


@pytest.mark.parametrize(("words", "most_own"), [(["--help"], 2), (["status"], 10)])
def test_what_must_be_quick_imports_no_heavy_package_and_few_modules_of_its_own(
    words: list[str], most_own: int, tmp_path: Path
) -> None:
    program = f"import sys, atexit; atexit.register(lambda: exec({LISTS!r})); sys.argv = ['elias', *{words!r}]\n"
    program += "from elias.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program], env={"ELIAS_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    modules = json.loads(ran.stderr)
    assert [name for name in HEAVY if name in modules] == []
    own = [name for name in modules if name.startswith(("elias.", "elias_trainer"))]
    assert len(own) <= most_own, own
