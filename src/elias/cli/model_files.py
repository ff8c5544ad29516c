"""`elias model list|show|verify`: what was trained, and whether it still is what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table

if TYPE_CHECKING:
    from elias.domain.receipt import Receipt
    from elias.services.verify import Verified

Model = Annotated[str, typer.Argument(help="`latest`, a digest or the beginning of one.")]
ModelOrFolder = Annotated[str, typer.Argument(metavar="MODEL|PATH", help="`latest`, a digest, or a model's folder.")]


def add_to(app: typer.Typer) -> None:
    app.command("list")(list_models)
    app.command("show")(show_model)
    app.command("verify")(verify_model)


def list_models(json: Json = False) -> None:
    """The models trained here, newest first."""
    from elias.config import load
    from elias.wiring.stores import open_stores

    with open_stores(load()) as stores:
        models = stores.models.artifacts()
    if json:
        emit_json(models)
        return
    rows = [
        (m.digest.short, m.base_reference, m.method, m.label, m.run, _size(m.bytes), f"{m.created_at:%Y-%m-%d %H:%M}")
        for m in models
    ]
    columns = ("model", "base", "method", "label", "run", "size", "made")
    emit_table(columns, rows, empty="no models yet; train one: elias train")


def show_model(model: Model = "latest", json: Json = False) -> None:
    """What a model was made from, where, and what it took. Its files and receipt are verified first."""
    from elias.config import load
    from elias.wiring.attest import open_attest

    with open_attest(load()) as attest:
        found = attest.verify(model)
    if json:
        emit_json(_fields(found))
        return
    for name, value in _facts(found.receipt):
        print(f"{name:<9} {value}")
    print()
    columns = ("segment", "backend", "accelerator", "outcome", "steps", "tokens", "cost")
    emit_table(columns, _segments(found.receipt), empty="no segments")
    print(f"\nfiles in  {found.folder}")


def verify_model(model: ModelOrFolder = "latest", json: Json = False) -> None:
    """Check signature, digests, receipt and structure; exit 4 when one is wrong, naming the file."""
    from elias.config import load
    from elias.wiring.attest import open_attest

    with open_attest(load()) as attest:
        found = attest.verify(model)
    if json:
        emit_json(_fields(found))
        return
    receipt, also = found.receipt, len(found.also_from)
    base = "and its base's shapes" if found.compared_with_base else "its base's own shapes were not at hand"
    print(f"{found.digest}\n  is what it claims to be")
    print(f"  signature  {found.folder / 'model.sig'}")
    print(f"  digests    {_count(len(receipt.files), 'file')}, {_size(receipt.bytes)}")
    print(
        f"  receipt    run {receipt.run}, {_count(len(receipt.segments), 'segment')}"
        + (f"; the same from {_count(also, 'other run')}" if also else "")
    )
    print(f"  structure  only the expected tensors, all finite; {base}")


def _fields(found: Verified) -> dict[str, object]:
    return {
        "digest": found.digest,
        "folder": found.folder,
        "receipt_digest": found.receipt_digest,
        "also_from": found.also_from,
        "compared_with_base": found.compared_with_base,
        "receipt": found.receipt,
        "totals": {
            "tokens": found.receipt.tokens,
            "cost": found.receipt.cost,
            "seconds": found.receipt.seconds,
            "losses": found.receipt.losses,
        },
    }


def _facts(receipt: Receipt) -> list[tuple[str, str]]:
    from elias.units import rfc3339

    first, last = receipt.losses
    seconds = ", ".join(f"{phase} {spent:.1f} s" for phase, spent in receipt.seconds.items())
    recipe = receipt.recipe
    return [
        ("model", receipt.manifest),
        ("made", rfc3339(receipt.issued_at.replace(microsecond=0))),
        ("run", f"{receipt.run} ({receipt.strategy})"),
        ("base", f"{receipt.base_reference}  {receipt.base_digest.short}"),
        ("corpus", receipt.corpus.short),
        ("label", receipt.label),
        ("recipe", f"{recipe.method}, {recipe.objective}, rank {recipe.rank}, learning rate {recipe.learning_rate:g}"),
        ("loss", "not reported" if first is None or last is None else f"{first:.3f} -> {last:.3f} (training)"),
        ("tokens", f"{receipt.tokens:,}"),
        ("time", seconds or "not reported"),
        ("cost", str(receipt.cost)),
        ("signed by", receipt.node),
    ]


def _segments(receipt: Receipt) -> list[tuple[object, ...]]:
    from elias.units import Money

    return [
        (
            link.number,
            link.backend,
            link.accelerator or "-",
            link.outcome,
            f"{link.start_step} -> {'-' if link.end_step is None else link.end_step}",
            f"{link.tokens:,}",
            Money(link.cost_micro_usd),
        )
        for link in receipt.segments
    ]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
