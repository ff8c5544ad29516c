"""Answers and errors as they are written down, and what comes back."""

from __future__ import annotations

import pytest

from elias.adapters.engine.recorded import JsonSerializer, error_record, from_error_record, outcome_of, replay
from elias.adapters.stores.failures import StoreBroken
from elias.errors import BackendError, EliasError, QuotaExhausted


class _Special(BackendError):
    """With arguments of its own, as an adapter may have."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} is full", fix="wait")
        self.where = where
        self.handle = object()


def test_an_error_of_ours_comes_back_with_its_class_and_all_it_says() -> None:
    for error in (QuotaExhausted("no hours left", fix="wait", kept="the run"), StoreBroken("torn", fix="mend it")):
        again = from_error_record(error_record(error))
        assert type(again) is type(error)
        assert isinstance(again, EliasError)
        assert (str(again), again.what, again.fix, again.kept) == (error.what, error.what, error.fix, error.kept)
        assert (again.exit_code, again.is_worth_retry, again.code) == (
            error.exit_code,
            error.is_worth_retry,
            error.code,
        )


def test_an_error_with_arguments_of_its_own_keeps_what_json_can_hold() -> None:
    again = from_error_record(error_record(_Special("the attic")))
    assert isinstance(again, _Special)
    assert again.where == "the attic"
    assert not hasattr(again, "handle")


def test_an_error_whose_class_is_gone_is_of_the_nearest_one_above() -> None:
    record = error_record(_Special("the attic"))
    record["elias"][0] = "RenamedSince"
    assert type(from_error_record(record)) is BackendError


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("a", 1), FileNotFoundError(2, "No such file"), OSError("y")]
)
def test_an_error_of_python_comes_back_as_it_was(error: Exception) -> None:
    again = from_error_record(error_record(error))
    assert (type(again), again.args) == (type(error), error.args)


def test_any_other_error_is_a_runtime_error_that_names_it() -> None:
    class Odd(Exception):
        pass

    assert repr(from_error_record(error_record(Odd("so odd")))) == "RuntimeError('Odd: so odd')"
    undecodable = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert "invalid start byte" in str(from_error_record(error_record(undecodable)))


def test_an_answer_that_is_not_json_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        replay(outcome_of(object, ()))
    with pytest.raises(ValueError, match="JSON"):
        replay(outcome_of(float, ("nan",)))


def test_the_serializer_brings_back_values_and_errors() -> None:
    serializer = JsonSerializer()
    inputs = {"args": ["run-1"], "kwargs": {}}
    assert serializer.deserialize(serializer.serialize(inputs)) == inputs
    again = serializer.deserialize(serializer.serialize(BackendError("full", fix="wait")))
    assert isinstance(again, BackendError)
