"""What this machine is made of."""

from __future__ import annotations

from elias.adapters.hardware import gpus, probe, threads_available


def test_a_machine_has_cores_memory_and_a_disk_below_a_home_that_is_not_there_yet(tmp_path):
    machine = probe(tmp_path / "not" / "there" / "yet")
    assert machine.cores >= 1 and machine.memory_bytes > 2**27
    assert 0 < machine.disk_free_bytes <= machine.disk_bytes
    assert not (tmp_path / "not").exists()


def test_cards_have_a_name_and_memory_and_none_is_an_answer_too():
    assert all(gpu.name and gpu.memory_bytes > 0 for gpu in gpus())


def test_at_least_one_thread_is_available():
    assert threads_available() >= 1
