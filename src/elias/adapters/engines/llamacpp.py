"""llama.cpp, in a child process of its own: the engine for every base that is here as a GGUF file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from elias.adapters.engines.child import Children, Program
from elias.adapters.engines.gguf_header import GgufHeader, read_header
from elias.adapters.engines.gguf_lora import cannot_convert, gguf_lora
from elias.errors import DigestMismatch, EngineError, InputError
from elias.ports.inference import Endpoint, EngineContext, ModelToServe
from elias_trainer.contract import PLAIN_TEMPLATE, STARTER, Digest, digest_file, starter_gguf

_LONGEST_CONTEXT = 8192
"""Tokens: a longer one costs memory from the start, whether or not it is used."""
_SLOTS = 4
"""Answers written at the same time; they share the context."""
_START_S = 300.0
"""For the program itself, on a busy machine too; beside it, for the weights:"""
_BYTES_A_SECOND = 50_000_000
"""A slow disk; how long a start may take follows from it."""


class LlamaCpp:
    """A fresh server and context for each adapter: llama.cpp keeps its prompt cache across adapter changes."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._children = Children()
        self._digests: dict[tuple[Path, int, int], Digest] = {}

    def can_serve(self, model: ModelToServe) -> str | None:
        """None, or why not."""
        if importlib.util.find_spec("xllamacpp") is None:
            return "the package xllamacpp is not installed: pip install 'elias-node[node]'"
        found = _weights(model.base.reference)
        if isinstance(found, str):
            return found
        try:
            header = read_header(found)
        except InputError as error:
            return error.what
        if not header.has_chat_template and header.adds_bos:
            return (
                f"{found.name} has no chat template and asks for a token before every prompt, which training does not "
                "put there"
            )
        return cannot_convert(model.adapter, header) if model.adapter else None

    def start(self, model: ModelToServe, logs: Path) -> Endpoint:
        """About a second for a small model."""
        reason = self.can_serve(model)
        weights = _weights(model.base.reference)
        if reason is not None or isinstance(weights, str):
            fix = "serve it with the engine `reference`, or give a .gguf file as its base"
            raise EngineError(f"llama.cpp cannot serve {model.name}: {reason}", fix=fix)
        self._check(weights, model.base.digest)
        header = read_header(weights)
        arguments = ["--model", str(weights), "--name", model.name, *self._sizes(header)]
        if model.adapter:
            arguments += ["--lora", str(gguf_lora(model.adapter, header, self._context.home / "lora"))]
        if not header.has_chat_template:  # llama.cpp would put the question in a form that nobody trained on
            arguments += ["--chat-template", PLAIN_TEMPLATE]
        program = Program(
            module="elias.adapters.engines.llamacpp_server",
            arguments=arguments,
            folder=self._context.home,
            log=logs,
            start_within_s=_START_S + weights.stat().st_size / _BYTES_A_SECOND,
            environment={"OMP_WAIT_POLICY": "PASSIVE"},
        )
        return self._children.start(program)

    def is_alive(self, endpoint: Endpoint) -> bool:
        return self._children.is_alive(endpoint)

    def stop(self, endpoint: Endpoint) -> None:
        self._children.stop(endpoint)

    def _sizes(self, header: GgufHeader) -> list[str]:
        context = min(header.context_length, _LONGEST_CONTEXT)
        return ["--threads", str(self._context.threads), "--context", str(context), "--slots", str(_SLOTS)]

    def _check(self, weights: Path, digest: Digest | None) -> None:
        """The base must be the very bytes the adapter was trained on; hashed once for each state of the file."""
        if digest is None:
            return
        state = weights.stat()
        key = (weights, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = digest_file(weights)
        if self._digests[key] != digest:
            fix = f"put the file with {digest} back, or train on this one"
            raise DigestMismatch(
                f"{weights} is {self._digests[key]}, not {digest} that the model was made for", fix=fix
            )


def _weights(reference: str) -> Path | str:
    """The base's GGUF file, or why there is none."""
    if reference == STARTER:
        try:
            return starter_gguf()
        except FileNotFoundError as error:
            return str(error)
    path = Path(reference).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path.resolve()
    return f"there is no GGUF file of the base {reference!r} here"
