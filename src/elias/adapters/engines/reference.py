"""transformers and PEFT in a child process: slow, and right for any base that can be trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from elias.adapters.engines.child import Children, Program
from elias.errors import EngineError
from elias.ports.inference import Endpoint, EngineContext, ModelToServe
from elias_trainer.contract import STARTER, TINY, starter_gguf

_START_WITHIN_S = 900.0
"""A GGUF base is converted the first time: 25 s for the starter, minutes for 7 billion parameters."""
_NEEDED = ("torch", "transformers", "peft")


class Reference:
    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._children = Children()

    def can_serve(self, model: ModelToServe) -> str | None:
        """None, or why not."""
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            return f"the package {missing[0]} is not installed: pip install 'elias-node[train]'"
        if model.adapter is not None and not _holds_model(model.adapter):
            return f"{model.adapter} holds neither an adapter nor a model"
        return _missing_base(model.base.reference)

    def start(self, model: ModelToServe, logs: Path) -> Endpoint:
        """5 s for a small model, 25 s more when its GGUF file has not been converted yet."""
        reason = self.can_serve(model)
        if reason is not None:
            raise EngineError(
                f"the reference engine cannot serve {model.name}: {reason}", fix="name a base that is here"
            )
        arguments = ["--base", _absolute(model.base.reference), "--name", model.name, "--port", "0"]
        arguments += ["--threads", str(self._context.threads), "--cache", str(self._context.home / "bases")]
        if model.base.digest:
            arguments += ["--digest", model.base.digest]
        if model.adapter:
            arguments += ["--adapter", str(model.adapter.resolve())]
        if model.base.allow_code:
            arguments += ["--allow-code"]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(self._context.threads)}
        program = Program(
            module="elias_trainer.serve",
            arguments=arguments,
            folder=self._context.home,
            log=logs,
            start_within_s=_START_WITHIN_S,
            environment=environment,
        )
        return self._children.start(program)

    def is_alive(self, endpoint: Endpoint) -> bool:
        return self._children.is_alive(endpoint)

    def stop(self, endpoint: Endpoint) -> None:
        self._children.stop(endpoint)


def _absolute(reference: str) -> str:
    """The child works in another folder."""
    path = Path(reference).expanduser()
    return str(path.resolve()) if reference not in (STARTER, TINY) and path.exists() else reference


def _holds_model(folder: Path) -> bool:
    is_adapter = (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file()
    return is_adapter or ((folder / "config.json").is_file() and any(folder.glob("*.safetensors")))


def _missing_base(reference: str) -> str | None:
    """A Hugging Face id may be in the hub's cache or on the network: the start finds out."""
    if reference == TINY:
        return None
    if reference == STARTER:
        try:
            starter_gguf()
        except FileNotFoundError as error:
            return str(error)
        return None
    path = Path(reference).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return None
    if path.is_dir():
        return None if any(path.glob("*.safetensors")) else f"{path} holds no .safetensors file"
    is_hub_id = reference.count("/") == 1 and not reference.startswith((".", "/", "~")) and path.suffix != ".gguf"
    return None if is_hub_id else f"there is no base at {reference!r}"
