from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {".venv", ".demo", ".bench", ".hypothesis", ".pytest_cache", "node_modules"}


def markdown_files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.md") if not LEFT_OUT & set(path.relative_to(ROOT).parts))


@pytest.fixture(params=markdown_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def root() -> Path:
    return ROOT
