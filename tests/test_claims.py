"""Claims: each shard has one holder at a time, even if workers die or clocks are wrong."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import claims
import pytest
from claims import ClaimLost, Claims


@pytest.fixture
def alien(monkeypatch):
    """Claims made inside this context look as if made on another machine, whose processes cannot be checked here."""
    real = claims._this_process

    def somewhere_else():
        return real() | {"host": "elsewhere"}

    def take(holder: Claims, shard: str):
        with monkeypatch.context() as patch:
            patch.setattr(claims, "_this_process", somewhere_else)
            return holder.take(shard)

    return take


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / ".claims").glob("*"))


def test_only_one_of_many_workers_gets_the_claim(tmp_path):
    gate, got = threading.Barrier(16), []

    def contend():
        mine = Claims(tmp_path, 60)
        gate.wait()
        got.append(mine.take("00000"))

    threads = [threading.Thread(target=contend) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in got) == 1


def killed_holder(folder, shard: str) -> None:
    """A claim of a process on this machine that is gone."""
    program = "import sys; from claims import *; Claims(Path(sys.argv[1]), 9).take(sys.argv[2])"
    command = [sys.executable, "-c", program, str(folder), shard]
    subprocess.run(command, cwd=Path(claims.__file__).parent, check=True)


def test_a_killed_process_is_detected_and_only_its_claims_are_cleared(tmp_path):
    for shard in ("00000", "00002"):
        killed_holder(tmp_path, shard)
    mine, other = Claims(tmp_path, 60), Claims(tmp_path, 1e6)
    assert other.stale("00000") == 0
    with other.take("00000"):
        assert names(tmp_path) == ["00000.0", "00000.1", "00002.0"]
    with mine.take("00001"):
        assert names(tmp_path) == ["00001.0", "00002.0"]
        mine.clear()
        assert names(tmp_path) == ["00001.0"]
    mine.clear()
    assert not (tmp_path / ".claims").exists()


def test_a_claim_is_released(tmp_path):
    mine, other = Claims(tmp_path, 60), Claims(tmp_path, 60)
    with mine.take("00000") as claim:
        assert other.take("00000") is None and other.take("00001") is not None
        assert not other.is_free("00000")
        claim.check()
    assert other.is_free("00000") and other.take("00000") is not None
    with pytest.raises(ZeroDivisionError), other.take("00002"):
        raise ZeroDivisionError
    assert other.is_free("00002")


def test_a_holder_with_heartbeats_keeps_its_claim(tmp_path, alien):
    other = Claims(tmp_path, 0.8)
    with alien(Claims(tmp_path, 0.8), "00000"):
        for _ in range(12):
            assert other.stale("00000") is None
            time.sleep(0.1)
        assert other.take("00000") is None


def test_a_silent_holder_on_another_machine_is_replaced_once(tmp_path, alien):
    silent = alien(Claims(tmp_path, 0.2), "00000")
    others = [Claims(tmp_path, 0.2) for _ in range(2)]
    assert [other.stale("00000") for other in others] == [None, None]
    time.sleep(0.3)
    dead = [other.stale("00000") for other in others]
    assert dead == [0, 0]
    got = [other.take("00000", over=0) for other in others]
    assert got[0] is not None and got[1] is None
    with pytest.raises(ClaimLost):
        silent.check()
    got[0].check()
    silent.__enter__().__exit__()  # resumes, and releases the claim that it believes to hold
    got[0].check()
    assert names(tmp_path) == ["00000.1"]


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_clocks_are_not_compared(tmp_path, alien, monkeypatch, skew):
    """File times may be a million seconds off in either direction, and the wall clock may jump."""
    alien(Claims(tmp_path, 0.3), "00000")
    path, other = tmp_path / ".claims" / "00000.0", Claims(tmp_path, 0.3)
    now = time.time() + skew
    os.utime(path, (now, now))
    monkeypatch.setattr(time, "time", lambda: now - skew * 3)
    assert other.stale("00000") is None
    time.sleep(0.4)
    with path.open("ab") as file:  # a heartbeat, whatever the file's time
        file.write(b".")
    os.utime(path, (now, now))
    assert other.stale("00000") is None
    time.sleep(0.4)
    assert other.stale("00000") == 0


def test_a_reused_process_id_does_not_keep_a_claim_alive(tmp_path):
    Claims(tmp_path, 9).take("0")
    path = tmp_path / ".claims" / "0.0"
    about = json.loads(path.read_text())
    assert Claims(tmp_path, 1e6).stale("0") is None
    path.write_text(json.dumps(about | {"started": "1"}) + "\n")
    assert Claims(tmp_path, 1e6).stale("0") == 0
    path.write_text(json.dumps(about | {"namespace": "pid:[1]", "pid": 2**22 + 1}) + "\n")
    assert Claims(tmp_path, 1e6).stale("0") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"{}\n"])
def test_a_truncated_claim_becomes_stale_only_after_the_wait(tmp_path, content):
    (tmp_path / ".claims").mkdir()
    (tmp_path / ".claims" / "0.0").write_bytes(content)
    other = Claims(tmp_path, 0.1)
    assert other.take("0") is None and other.stale("0") is None
    time.sleep(0.2)
    assert other.stale("0") == 0 and other.take("0", over=0) is not None
