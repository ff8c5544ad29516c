"""Answers of a model, piece by piece: one at a time, with what the base model's own chat template makes of a chat."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from elias_trainer.base import load_base
from elias_trainer.chat import render
from elias_trainer.contract import BaseModel
from elias_trainer.openai_form import Spoken, Wanted

_PIECE_TIMEOUT_S = 600.0
"""How long the next token may take before the answer is given up."""


class Voice:
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._turn = threading.Lock()

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids up to where the assistant begins, as in training. Raises ValueError for a chat that has no form."""
        text = render(messages, self._tokenizer, where="the request", prompting=True)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    @property
    def context_length(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", 2048))

    def speak(self, prompt: Sequence[int], wanted: Wanted, spoken: Spoken) -> Iterator[str]:
        """Pieces of text as they are found; waits its turn, since one model draws one answer at a time."""
        with self._turn:
            streamer = TextIteratorStreamer(
                self._tokenizer, skip_prompt=True, timeout=_PIECE_TIMEOUT_S, skip_special_tokens=True
            )
            failure: list[BaseException] = []
            writer = threading.Thread(target=self._write, args=(prompt, wanted, spoken, streamer, failure))
            writer.start()
            try:
                yield from _until_stop(streamer, wanted.stop, spoken)
            finally:
                spoken.gone.set()
                writer.join()
            if failure:
                raise failure[0]
            if spoken.was_cut:
                spoken.finish_reason = "stop"

    def _write(
        self, prompt: Sequence[int], wanted: Wanted, spoken: Spoken, streamer: Any, failure: list[BaseException]
    ) -> None:
        tokens = torch.tensor([list(prompt)], device=self._model.device)
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if wanted.temperature > 0:
            drawn = {"do_sample": True, "temperature": wanted.temperature, "top_p": wanted.top_p, "top_k": 0}
        if wanted.seed is not None:
            torch.manual_seed(wanted.seed)
        try:
            with torch.inference_mode():
                answer = self._model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=wanted.max_tokens,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([_Gone(spoken.gone)]),
                    pad_token_id=self._tokenizer.pad_token_id,
                    **drawn,
                )
            new = answer[0, tokens.shape[1] :]
            spoken.completion_tokens = len(new)
            if len(new) >= wanted.max_tokens and int(new[-1]) not in self._end_tokens():
                spoken.finish_reason = "length"
        except (RuntimeError, ValueError) as error:
            failure.append(error)
            streamer.end()

    def _end_tokens(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}


def load_voice(base: BaseModel, adapter: Path | None, cache: Path | None) -> Voice:
    """The base with the adapter in `adapter`; a fully fine-tuned model lies there whole, and is loaded as it is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32  # bfloat16 is 120 times slower on common CPUs
    if adapter is not None and not (adapter / "adapter_config.json").exists():
        base, adapter = BaseModel(reference=str(adapter), allow_code=base.allow_code), None
    loaded = load_base(base, cache=cache, dtype=dtype, device=device)
    model: Any = loaded.model
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).eval()
    model.config.use_cache = True
    return Voice(model, loaded.tokenizer)


class _Gone(StoppingCriteria):
    def __init__(self, gone: threading.Event) -> None:
        self._gone = gone

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._gone.is_set(), device=input_ids.device, dtype=torch.bool)


def _until_stop(pieces: Iterator[str], stop: Sequence[str], spoken: Spoken) -> Iterator[str]:
    """The pieces up to the first stop text; what may be its beginning is held back."""
    held = ""
    for piece in pieces:
        held += piece
        ends = [at for at in (held.find(text) for text in stop) if at >= 0]
        if ends:
            spoken.was_cut = True
            spoken.gone.set()
            if min(ends):
                yield held[: min(ends)]
            return
        keep = _overlap(held, stop)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held


def _overlap(text: str, stop: Sequence[str]) -> int:
    """How many of the last characters may begin a stop text."""
    longest = max((len(word) for word in stop), default=1) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(w.startswith(text[-n:]) for w in stop)), 0)
