"""Every page: its links lead somewhere, and the commands it names exist."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import typer

from elias.cli import COMMANDS

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[\s(`])(?:\$ )?(?:elias|uff_cli) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def test_each_relative_link_leads_to_a_file(page: Path):
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert not broken, f"{page.name} points to what is not there: {broken}"


def test_each_command_that_is_named_exists(page: Path):
    unknown = sorted({f"{word} {part or ''}".strip() for word, part in _commands(page) if not _exists(word, part)})
    assert not unknown, f"{page.name} names commands that nobody knows: {unknown}"


def test_the_checker_finds_what_is_wrong(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("[x](gone.md)\n\n    $ elias trian --fast\n\nType `elias model verfy`.\n")
    with pytest.raises(AssertionError, match=r"gone\.md"):
        test_each_relative_link_leads_to_a_file(page)
    with pytest.raises(AssertionError, match=r"model verfy.*trian"):
        test_each_command_that_is_named_exists(page)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(page: Path) -> list[tuple[str, str]]:
    """In code only: prose may say that ELIAS does this or that."""
    found: list[tuple[str, str]] = []
    is_fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            found += COMMAND.findall(line) if re.match(r"\s*(\$ )?(elias|uff_cli) ", line) else []
        else:
            found += [pair for code in CODE.findall(line) for pair in COMMAND.findall(code)]
    return found


def _exists(word: str, part: str) -> bool:
    """`part` counts only where the word is a group of commands; elsewhere it is an argument."""
    if word not in COMMANDS:
        return False
    app = import_module(f"elias.cli.{COMMANDS[word][0]}").app
    known = getattr(typer.main.get_command(app) if isinstance(app, typer.Typer) else app, "commands", None)
    return not part or known is None or part in known
