"""`elias kaggle`: what training on Kaggle's free hours needs and has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elias.cli.asking import Base, BatchSize, Length, Recompute
from elias.cli.output import Json, emit_json, emit_table, say
from elias_trainer.contract import Method

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The notebook template, the key, the quota.")


@app.command()
def template(
    out: Annotated[Path | None, typer.Option(help="Write it here; a .py becomes a script.")] = None, json: Json = False
) -> None:
    """The notebook that ELIAS pushes, to read and to change."""
    from elias.wiring.kaggle import template as text_of

    text = text_of(as_script=out is not None and out.suffix == ".py")
    if out is not None:
        out.write_text(text, encoding="utf-8")
        say(f'use it: template = "{out.absolute()}" under [backends.kaggle]')
    if json:
        emit_json({"path": out, "text": None if out else text})
    elif out is None:
        print(text, end="")


@app.command("by-hand")
def by_hand(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that stands (paused or failed), or `latest`.")],
    out: Annotated[Path, typer.Option(help="A new folder for the dataset and the notebook.")],
    max_minutes: Annotated[float | None, typer.Option(min=1, help="Of training.  [default: to its end]")] = None,
    json: Json = False,
) -> None:
    """Lay out a run's next segment for you to start on Kaggle yourself; sends nothing."""
    from elias.config import load
    from elias.units import span_of
    from elias.wiring.by_hand import lay_out

    kit = lay_out(load(), run, out.absolute(), span_of(max_minutes, "m") if max_minutes else None)
    if json:
        emit_json(kit)
        return
    say("Type these, each when the one before is done (the datasets `ready`, the notebook `COMPLETE`):")
    print("\n".join([*kit.commands, f"elias run adopt {kit.address}"]))


@app.command()
def memory(
    base: Base = None,
    method: Annotated[Method, typer.Option(help="What is trained.")] = Method.QLORA,
    batch_size: BatchSize = 4,
    sequence_length: Length = 1024,
    gradient_checkpointing: Recompute = False,
    json: Json = False,
) -> None:
    """What training a base would take of the two T4s' memory, by the memory model; exits 4 when it does not fit."""
    from elias.wiring.kaggle import on_t4s
    from elias.wiring.train import REAL_BASE
    from elias_trainer.contract import Recipe

    recipe = Recipe(
        method=method,
        batch_size=batch_size,
        sequence_length=sequence_length,
        gradient_checkpointing=gradient_checkpointing,
    )
    found = on_t4s(base or REAL_BASE, recipe)
    if json:
        emit_json(found)
    else:
        parts = ("weights", "gradients", "optimizer", "activations", "runtime")
        rows = [(part, f"{getattr(found.needs, part) / 1e9:.1f} GB") for part in parts]
        emit_table(["of a card", "bytes"], [*rows, ("together", f"{found.needs_bytes / 1e9:.1f} GB")], empty="")
        taken = {1: "fits one T4", 2: "is split over both T4s"}.get(found.cards or 0, "is more than two T4s have")
        print(f"{taken} ({found.card_bytes / 1e9:.0f} GB each); a model in float16, never measured on a T4")
        say(f"the base's numbers: {found.shape}")
        if found.cards is None:
            say("less is: --method qlora, --gradient-checkpointing, a smaller --batch-size or --sequence-length")
    if found.cards is None:
        raise typer.Exit(4)


@app.command()
def key(json: Json = False) -> None:
    """A key for private data that travels as a Kaggle Secret; made once, shown each time."""
    from elias.config import load
    from elias.wiring.kaggle import secret_key

    identity, recipient = secret_key(load())
    if json:
        emit_json({"secret": "ELIAS_KEY", "value": identity, "secret_recipient": recipient})
        return
    say("On kaggle.com, in any notebook: Add-ons, Secrets, a new secret ELIAS_KEY with this value, attached.")
    print(identity)
    say("Then write under [backends.kaggle]:")
    print(f'key_by = "secret"\nsecret_recipient = "{recipient}"')


@app.command()
def quota(json: Json = False) -> None:
    """GPU hours used and left this week, read live from Kaggle."""
    from elias.config import load
    from elias.units import rfc3339
    from elias.wiring.kaggle import quota as live_quota

    found = live_quota(load())
    left = max(found.allowed - found.used - found.reserved, found.used * 0)
    if json:
        emit_json(found)
        return
    print(f"used {found.used}, reserved {found.reserved}, left {left} of {found.allowed} (the configured cap included)")
    print(
        f"begins anew {rfc3339(found.refreshes_at)}; {found.running} of {found.concurrency} sessions of this node run"
    )
