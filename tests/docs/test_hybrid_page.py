"""docs/hybrid.md: each story stands there as its script tells it, and what a plan looks like has not changed since."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stories() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hybrid_stories", ROOT / "demo" / "hybrid_stories.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def answers(text: str) -> dict[str, list[str]]:
    """Command -> the lines that it printed, of a story's block."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("    $ elias "):
            found[line.removeprefix("    $ elias ")] = []
        elif found and line.strip():
            found[list(found)[-1]].append(line[4:])
    return found


def story(stories: ModuleType, name: str) -> dict[str, list[str]]:
    page = (ROOT / "docs" / "hybrid.md").read_text(encoding="utf-8")
    told = re.search(rf"<!-- begin {name} -->(.*?)<!-- end {name} -->", page, re.DOTALL)
    assert told, f"the page has no story {name!r}"
    return answers(told[1])


@pytest.mark.parametrize("name", ["free", "overflow", "alone"])
def test_the_page_tells_each_command_of_a_story_and_what_it_answered(stories: ModuleType, name: str):
    told = story(stories, name)
    assert list(told) == [typed.command for typed in stories.STORIES[name]], "python demo/hybrid_stories.py"
    assert all(told.values())


def test_what_the_stories_say_is_what_they_are_told_for(stories: ModuleType):
    free, overflow = (next(iter(story(stories, name).values())) for name in ("free", "overflow"))
    assert any(line.startswith("in time for") for line in free) and any("for free" in line for line in free)
    assert any(line.startswith("in time for") for line in overflow)
    assert any(line.startswith("kaggle") for line in overflow) and any(
        line.startswith("sagemaker") for line in overflow
    )
    assert not any("for free" in line for line in overflow)
    alone = story(stories, "alone")
    assert any("local" in line for line in next(iter(alone.values())))
    assert any(line.startswith("in service") for line in alone["status"])


@pytest.mark.slow
def test_a_plan_typed_today_looks_as_it_does_on_the_page(stories: ModuleType):
    (command, told), *_ = story(stories, "free").items()
    with stories.a_node(with_clouds=True) as node:
        today = node.types(command).splitlines()

    def kinds(lines: list[str]) -> set[str]:
        words = ("place ", "kaggle", "done by", "in time for", "█ free")
        return {word for word in words if any(line.startswith(word) for line in lines)}

    assert " ".join(today[0].split()) == " ".join(told[0].split())
    assert kinds(today) == kinds(told) and len(kinds(told)) == 5
