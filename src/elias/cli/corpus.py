"""`elias corpus build|list|show|export`: sessions made into something to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table, say
from elias.domain.label import Label
from elias.services.corpus import Part

if TYPE_CHECKING:
    from elias.domain.corpus import Corpus

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Build, list, show and export corpora.")

CorpusArgument = Annotated[str, typer.Argument(help="`latest`, a digest or the beginning of one.")]


@app.command("build")
def build(
    source: Annotated[list[str] | None, typer.Option(help="Only sessions of this source; may be repeated.")] = None,
    label_at_most: Annotated[Label, typer.Option(help="Leave stricter sessions out.")] = Label.SECRET,
    heldout_share: Annotated[
        float | None, typer.Option(help="Kept back to measure by; the default is `training.heldout_share`.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a corpus of the sessions: split into train and held-out, weighted by reward, the same bytes everywhere."""
    from elias.config import load
    from elias.services.corpus import Choice
    from elias.wiring.corpus import open_corpora

    config = load()
    share = config.training.heldout_share if heldout_share is None else heldout_share
    choice = Choice(heldout_share=share, sources=tuple(source or ()), label_at_most=label_at_most)
    with open_corpora(config) as corpora:
        _emit(corpora.build(choice, tell=say), json=json)
    if not json:
        say("next: elias train")


@app.command("list")
def list_corpora(json: Json = False) -> None:
    """Newest first."""
    from elias.config import load
    from elias.wiring.corpus import open_corpora

    with open_corpora(load()) as corpora:
        found = corpora.list()
    if json:
        emit_json(found)
        return
    rows = [
        (c.digest.short, c.label, c.train_examples, c.heldout_examples, _sources(c), f"{c.built_at:%Y-%m-%d %H:%M}")
        for c in found
    ]
    columns = ("corpus", "label", "train", "held-out", "sessions", "built")
    emit_table(columns, rows, empty="no corpus yet; build one: elias corpus build")


@app.command("show")
def show(corpus: CorpusArgument = "latest", json: Json = False) -> None:
    """One corpus, its files compared with their digests first."""
    from elias.config import load
    from elias.wiring.corpus import open_corpora

    with open_corpora(load()) as corpora:
        found = corpora.materialize(corpus)
    if json:
        emit_json(found)
        return
    _emit(found.corpus, json=False)
    print(f"files     {found.train}\n          {found.heldout}")


@app.command("export")
def export(
    corpus: CorpusArgument = "latest",
    form: Annotated[str, typer.Option("--format", help="jsonl: one example a line.")] = "jsonl",
    split: Annotated[Part, typer.Option(help="Which side.")] = Part.TRAIN,
    out: Annotated[Path | None, typer.Option(help="A file; standard output without.")] = None,
    json: Json = False,
) -> None:
    """Write one side of a corpus as it is trained on. Its label goes with it; from here on it is yours to keep."""
    import shutil
    import sys

    from elias.config import load
    from elias.errors import InputError
    from elias.wiring.corpus import export_jsonl, open_corpora

    if form != "jsonl":
        raise InputError(f"{form!r} is not a format of a corpus", fix="use --format jsonl")
    with open_corpora(load()) as corpora:
        found = corpora.get(corpus)
        with corpora.open(found.digest, split) as stream:
            say(f"corpus {found.digest.short} is {found.label}")
            if out is None:
                shutil.copyfileobj(stream, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                export_jsonl(stream, out)
    if out is not None and json:
        emit_json({"corpus": found.digest, "label": found.label, "split": split, "path": out})
    elif out is not None:
        print(f"wrote {out}")


def _emit(corpus: Corpus, *, json: bool) -> None:
    if json:
        emit_json(corpus)
        return
    print(f"corpus    {corpus.digest}")
    print(f"label     {corpus.label}")
    pairs = f", {corpus.preference_pairs:,} of them preference pairs" if corpus.preference_pairs else ""
    print(f"train     {corpus.train_examples:,} examples{pairs}")
    print(f"held-out  {corpus.heldout_examples:,} examples")
    print(f"sessions  {_sources(corpus)}")


def _sources(corpus: Corpus) -> str:
    return ", ".join(f"{count:,} {source}" for source, count in corpus.by_source.items())
