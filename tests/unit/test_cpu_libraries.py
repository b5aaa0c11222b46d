"""What the services set for CTranslate2 and OpenMP."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from stt_server.lifecycle import cpu_libraries
from stt_server.lifecycle.cpu_libraries import has_fast_avx512

SKYLAKE = "fpu sse2 avx2 avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
ICE_LAKE = f"{SKYLAKE} avx512vbmi avx512_vbmi2"


def configured(monkeypatch: pytest.MonkeyPatch, *, fast_avx512: bool, **environ: str) -> dict[str, str]:
    """Environment after `configure_cpu_libraries` on an x86-64 processor."""
    found = dict(environ)
    monkeypatch.setattr(os, "environ", found)
    monkeypatch.setattr(cpu_libraries, "set_here", set())
    monkeypatch.setattr(cpu_libraries, "has_fast_avx512", lambda: fast_avx512)
    cpu_libraries.configure_cpu_libraries()
    assert cpu_libraries.set_here == found.keys() - environ.keys()
    return found


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        (f"processor\t: 0\nflags\t\t: {ICE_LAKE}\n", True),
        (f"processor\t: 0\nflags\t\t: {SKYLAKE}\n", False),
        (f"processor\t: 0\nflags\t\t: {ICE_LAKE.replace('avx512bw', '')}\n", False),
        (f"model name\t: {ICE_LAKE}\n", False),
        ("", False),
    ],
)
def test_avx512_is_fast_from_ice_lake_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fast: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert has_fast_avx512(file) is fast
    assert not has_fast_avx512(tmp_path / "missing")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not has_fast_avx512(file)


def test_avx512_is_used_where_it_is_fast_and_nothing_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch, fast_avx512=True)["CT2_FORCE_CPU_ISA"] == "AVX512"
    assert "CT2_FORCE_CPU_ISA" not in configured(monkeypatch, fast_avx512=False)
    assert configured(monkeypatch, fast_avx512=True, CT2_FORCE_CPU_ISA="AVX2")["CT2_FORCE_CPU_ISA"] == "AVX2"


def test_openmp_of_other_makers_does_not_spin_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert configured(monkeypatch, fast_avx512=False)["KMP_BLOCKTIME"] == "0"
    assert configured(monkeypatch, fast_avx512=False, KMP_BLOCKTIME="9")["KMP_BLOCKTIME"] == "9"
    assert "KMP_BLOCKTIME" not in configured(monkeypatch, fast_avx512=False, OMP_WAIT_POLICY="passive")
