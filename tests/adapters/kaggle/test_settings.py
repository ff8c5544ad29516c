"""What is refused before anything is sent: settings, templates, bases."""

from collections.abc import Callable
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.errors import ConfigError
from elias_trainer.contract import BaseModel, FailureKind, Recipe


@pytest.mark.slow
def test_a_base_that_the_notebook_could_not_fetch_is_refused_before_anything_is_sent(place: Any) -> None:
    base = BaseModel(reference="deepseek-ai/deepseek-coder-6.7b-instruct")
    need = Need(base=base, recipe=Recipe(), label=Label.PUBLIC, corpus_bytes=1)
    [offer] = place.backend.offers(need)
    assert "internet = true" in (offer.refused or "")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"session_limit": "5m", "margin": "10m"}, "leaves nothing"),
        ({"cancel_by": "wish"}, "cancel_by"),
        ({"key_by": "secret"}, "secret_recipient"),
        ({"weekly_cap": "much"}, "weekly_cap"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_setting_that_cannot_be_is_named(make_backend: Callable[..., Any], settings: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refused:
        make_backend(**settings)
    assert refused.value.fix


def test_the_template_of_the_user_needs_all_its_marks(
    make_backend: Callable[..., KaggleBackend], place: Any, tmp_path: Any
) -> None:
    (tmp_path / "mine.py").write_text("print('{{SEGMENT}}')")
    place.backend = make_backend(template=str(tmp_path / "mine.py"))
    place.submit()
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.USER
    assert "{{DATASET}}" in ended.failure.message and "elias kaggle template" in ended.failure.fix
