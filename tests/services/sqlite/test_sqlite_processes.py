from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyworkflow.services.sqlite import _liveness

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it reads /proc")


def test_a_process_keeps_its_start_and_another_has_another() -> None:
    mine = _liveness.start_of(os.getpid())
    assert mine is not None
    assert _liveness.start_of(os.getpid()) == mine
    assert mine > (_liveness.start_of(1) or 0)


def test_a_process_that_is_over_has_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert _liveness.start_of(process.pid) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not _liveness.is_gone(process.pid)  # its id is still taken
    assert _liveness.start_of(process.pid) is None
    process.communicate()
    assert _liveness.is_gone(process.pid)
    assert _liveness.start_of(process.pid) is None


@pytest.mark.parametrize("stat", ["", "1 (x) S", "1 (a) b) S " + "x " * 30])
def test_what_can_not_be_read_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stat: str
) -> None:
    monkeypatch.setattr(_liveness, "_PROC", tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(stat, "utf-8")
    assert _liveness.start_of(7) is None
    assert _liveness.start_of(8) is None


def test_a_name_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_liveness, "_PROC", tmp_path)
    (tmp_path / "7").mkdir()
    fields = " ".join(map(str, range(4, 30)))
    (tmp_path / "7" / "stat").write_text(f"7 (a) Z 1 (b) S {fields}\n", "utf-8")
    assert _liveness.start_of(7) == 22


def test_another_boot_is_another_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = _liveness.this_host()
    boot = tmp_path / "sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("another\n", "utf-8")
    _liveness._boot.cache_clear()
    try:
        monkeypatch.setattr(_liveness, "_PROC", tmp_path)
        assert _liveness.this_host() == f"another {here.split(' ', 1)[1]}"
        _liveness._boot.cache_clear()
        boot.unlink()
        assert _liveness.this_host().split()[0]
    finally:
        monkeypatch.undo()
        _liveness._boot.cache_clear()
    assert _liveness.this_host() == here
