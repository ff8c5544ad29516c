"""How far data goes by its label, and what lies on the other machine of what is private."""

from pathlib import Path

import pytest

from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import LabelForbids
from elias.testing.bundles import CORPUS, Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias_trainer.contract import Recipe
from tests.adapters.files_under import files_with, named
from tests.adapters.ssh.conftest import Server, make_backend
from tests.adapters.ssh.test_ssh_faults import is_running, submit, to_the_end, until


def readable_in(there: Path) -> list[str]:
    return [str(path) for path in files_with(there, CORPUS.strip())]


def test_private_data_lies_sealed_there_and_nothing_readable_stays(server: Server, tmp_path: Path, there: Path) -> None:
    backend = make_backend(server, tmp_path / "here", there)
    hold = tmp_path / "hold"
    hold.touch()
    wanted = Wanted(label=Label.PRIVATE, recipe=Recipe(max_steps=80), base=fake_base(held=(hold, 40)))
    handle = submit(backend, make_bundle(tmp_path / "bundle", "run-0001", wanted))
    until(backend, handle, is_running)
    outside = [path for path in readable_in(there) if "/work/" not in path]
    assert outside == [] and named(there, "corpus.jsonl.age")
    hold.unlink()
    assert to_the_end(backend, handle).state is SegmentState.DONE
    backend.fetch(handle, tmp_path / "home")
    assert (tmp_path / "home/adapter/adapter_model.safetensors").exists()
    assert readable_in(there) == [] and not named(there, "segment.key")
    assert not named(there, "*.safetensors") and named(there, "adapter.pack.age")
    assert list(backend.events(handle, -1)) != []
    backend.forget(handle)
    assert named(there, "*.age") == []
    backend.close()


@pytest.mark.slow
def test_a_machine_that_the_user_trusts_gets_private_data_readable(server: Server, tmp_path: Path, there: Path) -> None:
    backend = make_backend(server, tmp_path / "here", there, trusted=True)
    made = make_bundle(tmp_path / "bundle", "run-0001", Wanted(label=Label.PRIVATE))
    handle = submit(backend, made)
    assert to_the_end(backend, handle).state is SegmentState.DONE
    assert not named(there, "*.age") and readable_in(there)
    backend.close()


@pytest.mark.parametrize("trusted", [False, True])
def test_secret_data_never_goes_not_even_where_the_user_trusts(
    server: Server, tmp_path: Path, there: Path, trusted: bool
) -> None:
    backend = make_backend(server, tmp_path / "here", there, trusted=trusted)
    made = make_bundle(tmp_path / "bundle", "run-0001", Wanted(label=Label.SECRET))
    with pytest.raises(LabelForbids):
        backend.submit("run-0001", made, backend.offers(need_of(made))[0])
    assert not there.exists()
    backend.close()
