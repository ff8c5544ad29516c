"""From Config to the corpora and to the blobs they are kept in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from elias.adapters.blobs import FileBlobs, SharedBlobs
from elias.adapters.clock import SystemClock
from elias.adapters.exporters import export_jsonl
from elias.config.schema import Config
from elias.domain.corpus import Corpus
from elias.errors import InputError
from elias.ports.stores import BlobStore
from elias.services.capture import Captured
from elias.services.corpus import Choice, Corpora
from elias.wiring.capture import make_capture
from elias.wiring.stores import Stores, open_stores

__all__ = ["corpus_from_data", "export_jsonl", "make_corpora", "open_blobs", "open_corpora", "sources_of"]

BLOBS_FOLDER = "blobs"
CHAT_SUFFIXES = (".jsonl", ".ndjson")


def open_blobs(config: Config, stores: Stores | None = None) -> BlobStore:
    """This node's own; with `stores`, those of all nodes that share them."""
    own = FileBlobs(config.home / BLOBS_FOLDER)
    return SharedBlobs(own, stores.folders) if stores and stores.folders else own


def make_corpora(config: Config, stores: Stores) -> Corpora:
    return Corpora(
        stores.sessions, stores.corpora, open_blobs(config, stores), SystemClock(), secret_blobs=open_blobs(config)
    )


@contextmanager
def open_corpora(config: Config) -> Iterator[Corpora]:
    """With the stores opened for it."""
    with open_stores(config) as stores:
        yield make_corpora(config, stores)


def corpus_from_data(
    config: Config, stores: Stores, path: Path, tell: Callable[[str, Captured], None] = lambda source, captured: None
) -> Corpus:
    """Captures what is at `path` and builds a corpus of exactly these sessions; `tell` hears what each source found.

    A .jsonl file is read as conversations (an exported corpus is such a file too), a .py file or a folder as Python
    code, and a folder with a `.git` in it as commits as well. Raises InputError where nothing is understood.
    """
    ids: set[str] = set()
    for source in sources_of(path):
        try:
            captured = make_capture(config, stores, source).take(path)
        except InputError:
            if source == "code" and ids:
                continue  # a repository in another language has its commits
            raise
        tell(source, captured)
        ids.update(captured.sessions)
        if not ids:
            captured.require_some(path)
    choice = Choice(heldout_share=config.training.heldout_share, sessions=frozenset(ids))
    return make_corpora(config, stores).build(choice)


def sources_of(path: Path) -> tuple[str, ...]:
    """The names of the session sources that can read `path`, by what it looks like."""
    if path.is_dir():
        return ("git", "code") if (path / ".git").exists() else ("code",)
    if path.suffix == ".py":
        return ("code",)
    if path.suffix in CHAT_SUFFIXES and path.exists():
        return ("chat",)
    raise InputError(
        f"{path} is none of the things to train on" if path.exists() else f"{path} is not there",
        fix="give a .jsonl file of conversations, a folder or file of Python code, or a git repository",
    )
