"""What a job installs before it trains: the user's wheels, and for private data this node's own pyrage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elias.adapters.backends.own_wheel import own_wheel, runs_on_linux
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.domain.label import Label

PYRAGE = "pyrage"


def wheels_of(settings: SageMakerSettings, label: Label, home: Path) -> Sequence[Path]:
    """`home` is the backend's; a wheel that is made here is kept there."""
    given = _given(settings)
    if label is not Label.PRIVATE or _has_pyrage(given):
        return given
    made = own_wheel(PYRAGE, home / "wheels")
    return [*given, made] if made else given


def why_not_sealed(settings: SageMakerSettings, label: Label) -> str | None:
    """Why private data could not be opened in the container; an image of the user's own may bring what it takes."""
    if label is not Label.PRIVATE or settings.image or _has_pyrage(_given(settings)) or runs_on_linux(PYRAGE):
        return None
    return (
        "private data travels sealed and AWS's image has no pyrage, nor does this machine's run there: "
        "pip download --no-deps --only-binary=:all: --platform manylinux2014_x86_64 -d ~/wheels pyrage, "
        'and under [backends.sagemaker] wheels = "~/wheels"'
    )


def _given(settings: SageMakerSettings) -> Sequence[Path]:
    return sorted(Path(settings.wheels).expanduser().glob("*.whl")) if settings.wheels else []


def _has_pyrage(wheels: Sequence[Path]) -> bool:
    return any(wheel.name.startswith(f"{PYRAGE}-") for wheel in wheels)
