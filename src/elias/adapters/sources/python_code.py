"""Sessions out of a Python source tree: each documented function is a task, its body the solution. Nothing is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from elias.adapters.sources.python_functions import DocumentedFunction, documented_functions
from elias.adapters.sources.python_text import read_python
from elias.domain.session import Event, Session, session_id
from elias.errors import InputError
from elias.ports.source import Skipped, SourceContext

VENDORED = frozenset({"node_modules", "__pycache__", "site-packages", "dist-packages", "__pypackages__", "venv"})
"""Folders of other people's or generated code, beside every folder whose name begins with a dot."""
LARGEST_FILE_BYTES = 2_000_000
LONGEST_BODY_CHARS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    path: Path
    name: str
    """Relative to what was captured, for people."""


class PythonCode:
    """A file or a folder. Functions without a docstring, stubs and functions inside functions are not tasks."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def read(self, location: Path) -> Iterator[Session | Skipped]:
        if not location.exists():
            raise InputError(f"{location} is not there", fix="give the path of a Python file or of a folder with some")
        seen: set[str] = set()
        files = found = 0
        for item in _python_files(location):
            if isinstance(item, Skipped):
                yield item
                continue
            files += 1
            for session in self._sessions(item, location):
                if isinstance(session, Skipped):
                    yield session
                elif session.id not in seen:
                    seen.add(session.id)
                    found += 1
                    yield session
        if not files:
            raise InputError(f"no Python file below {location}", fix="give the folder that holds your .py files")
        if not found:
            yield Skipped(
                where=str(location),
                why=f"no function with a docstring and a body in {files} Python {'file' if files == 1 else 'files'}",
                fix="capture a tree whose functions have docstrings; they are the tasks",
            )

    def _sessions(self, file: _File, root: Path) -> Iterator[Session | Skipped]:
        try:
            text = read_python(file.path, LARGEST_FILE_BYTES)
            functions = documented_functions(text)
        except OSError as error:
            yield Skipped(where=file.name, why=error.strerror or str(error), fix=f"chmod u+r {file.path}")
            return
        except SyntaxError as error:
            line = f":{error.lineno}" if error.lineno else ""
            yield Skipped(where=f"{file.name}{line}", why=f"not Python: {error.msg}", fix="mend it, or leave it out")
            return
        except (ValueError, RecursionError, MemoryError) as error:
            why = str(error) if isinstance(error, ValueError) else "nested too deeply to parse"
            yield Skipped(where=file.name, why=why, fix="mend it, or leave it out")
            return
        taken_at = self._written_at(file.path)
        for function in functions:
            if len(function.body) > LONGEST_BODY_CHARS:
                yield Skipped(
                    where=f"{file.name}:{function.line}",
                    why=f"{function.name} is longer than {LONGEST_BODY_CHARS:,} characters",
                    fix="split the function, or leave it out",
                )
                continue
            yield self._session(function, file, root, taken_at)

    def _session(self, function: DocumentedFunction, file: _File, root: Path, taken_at: datetime) -> Session:
        events = tuple(_events(function))
        return Session(
            id=session_id("code", events),
            source="code",
            title=f"{function.name} in {file.name}",
            taken_at=taken_at,
            events=events,
            origin={"path": str(root.absolute()), "file": file.name, "line": str(function.line)},
            stage=self._context.stage,
            label=self._context.label,
        )

    def _written_at(self, path: Path) -> datetime:
        try:
            return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
        except (OSError, ValueError, OverflowError):
            return self._context.clock.now()


def _events(function: DocumentedFunction) -> Iterator[Event]:
    if function.context:
        yield Event(kind="context", text=function.context, name=function.name)
    yield Event(kind="task", text=function.signature, name=function.name)
    yield Event(kind="solution", text=function.body, name=function.name)
    if function.doctests:
        yield Event(kind="test", text=function.doctests, name=function.name)


def _python_files(location: Path) -> Iterator[_File | Skipped]:
    """Every .py file in order of name; a folder reached by a link is not entered, so no loop is walked."""
    if location.is_file():
        yield _File(path=location, name=location.name)
        return
    denied: list[Skipped] = []

    def note(error: OSError) -> None:
        folder = error.filename or location
        denied.append(Skipped(where=str(folder), why=error.strerror or "cannot be read", fix=f"chmod -R u+rX {folder}"))

    for folder, folders, names in os.walk(location, onerror=note, followlinks=False):
        folders[:] = sorted(name for name in folders if not _is_vendored(Path(folder), name))
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file() and not _leads_outside(path, location):
                yield _File(path=path, name=_shown(path.relative_to(location)))
    yield from denied


def _is_vendored(folder: Path, name: str) -> bool:
    return name in VENDORED or name.startswith(".") or (folder / name / "pyvenv.cfg").is_file()


def _leads_outside(path: Path, root: Path) -> bool:
    """A linked file elsewhere was not what the person pointed at."""
    return path.is_symlink() and not path.resolve().is_relative_to(root.resolve())


def _shown(path: Path) -> str:
    """A name that is not UTF-8 would not survive JSON."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
