"""Parsing of `.env` lines, and strict casts in place of envparse's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from envparse import ConfigurationError

from stt_server.config import ConfigError, load
from stt_server.config.envfile import FileEnv, read_entries
from tests.support.config_files import Reader, make_model


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("K=v", "v"),
        ("export K=v", "v"),
        ("export\tK=v", "v"),
        ("  K = v  ", "v"),
        ("K=a b c", "a b c"),
        ("K='a b'", "a b"),
        ('K="a # b"', "a # b"),
        ("K='a # b' # comment", "a # b"),
        ("K=a#b", "a#b"),
        ("K=a # comment", "a"),
        ("K=#a", "#a"),
        ("K= # comment", ""),
        ("K=", ""),
        ('K=""', ""),
        ("K=a=b==", "a=b=="),
        ("K=grpc://host:50052", "grpc://host:50052"),
        ("K=name:key", "name:key"),
        ("K=$HOME/${HOME}", "$HOME/${HOME}"),
        ("K={{OTHER}}", "{{OTHER}}"),
        (r'K="a\"b\\c"', r'a"b\c'),
        (r"K='a\nb'", r"a\nb"),
        ("K=C:\\new", "C:\\new"),
        ("K=grün", "grün"),
        ("\ufeffK=v", "v"),
        ("# K=w\n\n   # more\nK=v", "v"),
        ("K=v\r\nL=w\r\n", "v"),
        ("K=v\rL=w", "v"),
    ],
)
def test_line_is_parsed(text: str, value: str) -> None:
    assert read_entries(text, "x")["K"].value == value


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_numbers_include_blank_lines_and_comments(end: str) -> None:
    text = end.join(["", "# first", "", "", "A=1", "   ", "B=2", "C=3", ""])
    assert {name: entry.line for name, entry in read_entries(text, "x").items()} == {"A": 5, "B": 7, "C": 8}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("line", ["K", "K v", "=v", 'K="v', "K='v", 'K="a" b', "K: v", "K='it''s'", "export K"])
def test_line_without_key_and_value_is_refused(line: str, end: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.env:3: ") as caught:
        read_entries(f"A=1{end}{end}{line}{end}B=2{end}", "x.env")
    assert "\n" not in str(caught.value)


def test_unclosed_quote_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^x\.env:1: A: contains a line break .*unclosed quote"):
        read_entries('A="1\nB=2\nC="\n', "x.env")


@pytest.mark.parametrize(("value", "number"), [("-0.5", -0.5), ("1e-3", 0.001)])
def test_float_keeps_sign_and_exponent(value: str, number: float) -> None:
    assert FileEnv({"A": value}).float("A") == number


@pytest.mark.parametrize("value", ["1,5", "1.000,5", "0.5x", "nan", "inf", "1e999", ""])
def test_invalid_float_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError):
        FileEnv({"A": value}).float("A")


@pytest.mark.parametrize("values", [{}, {"A": "8"}, {"A": ""}])
def test_default_is_cast_like_a_value(values: dict[str, str]) -> None:
    assert FileEnv(values, A={"cast": int, "default": "8"})("A") == 8


@pytest.mark.parametrize("word", ["ture", "enabled", "2", "y", "ok"])
def test_unknown_boolean_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError):
        FileEnv({"A": word}).bool("A")


@pytest.mark.parametrize("value", ["1_000", " 8 ", "٣"])
def test_integer_takes_plain_digits_only(value: str) -> None:
    with pytest.raises(ConfigurationError):
        FileEnv({"A": value}).int("A")


def test_double_braces_are_not_resolved() -> None:
    assert FileEnv({"A": "{{B}}", "B": "else"})("A") == "{{B}}"


@pytest.mark.parametrize("shortcut", ["list", "tuple", "set", "dict"])
def test_list_casts_of_envparse_are_not_supported(shortcut: str) -> None:
    with pytest.raises(TypeError, match=r"casts\.comma_list"):
        getattr(FileEnv({"A": "a,, b"}), shortcut)("A")


def test_envfile_search_of_envparse_is_not_supported(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        FileEnv.read_envfile(str(tmp_path / "stt_primary.env"))


def test_envparse_is_the_version_whose_defects_are_replaced() -> None:
    """`FileEnv` overrides internals of this version: review it before taking another."""
    assert version("envparse") == "0.2.0"


def test_empty_list_item_is_refused(tmp_path: Path) -> None:
    read = Reader(make_model(tmp_path))
    assert "empty item between commas" in read.error("TRUSTED_PROXIES=10.0.0.1,,10.0.0.2")


def test_environment_supplies_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "from the environment")
    with pytest.raises(ConfigurationError):
        FileEnv({})("STT_A")


def test_environment_overrides_no_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = Reader(make_model(tmp_path))
    before = read("BEAM_SIZE=3")
    for name in ("BEAM_SIZE", "MAX_QUEUE", "CT2_SMALL_PATH", "DEVICE"):
        monkeypatch.setenv(name, "7")
    assert read("BEAM_SIZE=3") == before


def test_missing_file_is_not_searched_in_parent_folders(tmp_path: Path) -> None:
    (tmp_path / "stt_primary.env").write_text(f"CT2_SMALL_PATH={make_model(tmp_path)}\n")
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "child" / "stt_primary.env", "primary")


def test_quoted_value_keeps_spaces_and_hash(tmp_path: Path) -> None:
    read = Reader(make_model(tmp_path))
    assert read('MODEL_NAME="whisper small #2"').model_name == "whisper small #2"
