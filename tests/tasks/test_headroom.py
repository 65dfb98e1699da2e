"""How much memory is left: of the machine, and of the group of processes that it limits."""

import torch

from foveal.tasks import headroom
from foveal.tasks.headroom import SHARE, bytes_of

CPU = torch.device("cpu")


def test_a_share_of_what_is_left_can_be_had():
    assert 0 < headroom.headroom(CPU) < 2**50


def test_a_container_gets_no_more_than_its_limit_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(headroom, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{3 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{2**21}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {2**19}\n")
    assert headroom.headroom(CPU) == SHARE * (2**20 + 2**19)
    (tmp_path / "memory.max").write_text("max\n")
    assert headroom.headroom(CPU) > 2**22


def test_a_system_that_tells_nothing_sets_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(headroom, "_left", lambda: iter(()))
    assert headroom.headroom(CPU) == float("inf")


def test_a_call_takes_what_its_tensors_take():
    with torch.enable_grad():
        assert 2**21 <= bytes_of(lambda: torch.ones(2**18) + 1, CPU) < 2**21 + 2**12
