"""Reading the lines of an `.env` file, and the traps of envparse that a plain `Env` falls into."""

from __future__ import annotations

from pathlib import Path

import pytest
from envparse import ConfigurationError, Env

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
def test_a_line_reads_as_people_expect(text: str, value: str) -> None:
    assert read_entries(text, "x")["K"].value == value


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_counted_from_the_top_with_blank_lines_and_comments(end: str) -> None:
    text = end.join(["", "# first", "", "", "A=1", "   ", "B=2", "C=3", ""])
    assert {name: entry.line for name, entry in read_entries(text, "x").items()} == {"A": 5, "B": 7, "C": 8}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("line", ["K", "K v", "=v", 'K="v', "K='v", 'K="a" b', "K: v", "K='it''s'", "export K"])
def test_a_line_that_is_not_key_value_is_refused_by_its_number(line: str, end: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.env:3: ") as caught:
        read_entries(f"A=1{end}{end}{line}{end}B=2{end}", "x.env")
    assert "\n" not in str(caught.value)


def test_a_quote_that_swallows_other_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^x\.env:1: A: takes one line .*quote left open"):
        read_entries('A="1\nB=2\nC="\n', "x.env")


# The traps. Each test shows the trap in envparse itself first: without it, the test would prove nothing.


def test_a_float_keeps_its_sign_and_its_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "-0.5")
    monkeypatch.setenv("STT_B", "1e-3")
    assert (Env().float("STT_A"), Env().float("STT_B")) == (0.5, 13.0)
    env = FileEnv({"STT_A": "-0.5", "STT_B": "1e-3"})
    assert (env.float("STT_A"), env.float("STT_B")) == (-0.5, 0.001)


@pytest.mark.parametrize("value", ["1,5", "1.000,5", "0.5x", "nan", "inf", "1e999", ""])
def test_a_float_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError):
        FileEnv({"A": value}).float("A")


def test_a_default_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Env(STT_A={"cast": int, "default": "8"})("STT_A") == "8"
    assert FileEnv({}, STT_A={"cast": int, "default": "8"})("STT_A") == 8


def test_a_value_equal_to_its_default_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "8")
    assert Env(STT_A={"cast": int, "default": "8"})("STT_A") == "8"
    assert FileEnv({"STT_A": "8"}, STT_A={"cast": int, "default": "8"})("STT_A") == 8


@pytest.mark.parametrize("word", ["ture", "enabled", "2", "y", "ok"])
def test_a_word_that_is_no_boolean_is_refused(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", word)
    assert isinstance(Env().bool("STT_A"), bool)
    with pytest.raises(ConfigurationError):
        FileEnv({"STT_A": word}).bool("STT_A")


@pytest.mark.parametrize("value", ["1_000", " 8 ", "٣"])
def test_an_integer_is_written_in_plain_digits(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", value)
    assert isinstance(Env().int("STT_A"), int)
    with pytest.raises(ConfigurationError):
        FileEnv({"STT_A": value}).int("STT_A")


def test_a_value_in_double_braces_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "{{STT_B}}")
    with pytest.raises(TypeError):
        Env()("STT_A")  # meant to look STT_B up; its call of itself has one argument too many
    assert FileEnv({"STT_A": "{{STT_B}}", "STT_B": "else"})("STT_A") == "{{STT_B}}"


def test_lists_and_dicts_are_not_left_to_envparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "a,, b")
    assert Env().list("STT_A") == ["a", "b"]
    monkeypatch.setenv("STT_B", "k=v=w")
    with pytest.raises(ValueError, match="too many values"):
        Env().dict("STT_B")
    env = FileEnv({"STT_A": "a,, b"})
    for shortcut in (env.list, env.tuple, env.set, env.dict):
        with pytest.raises(TypeError):
            shortcut("STT_A")


def test_an_empty_item_in_a_list_is_refused(tmp_path: Path) -> None:
    read = Reader(make_model(tmp_path))
    assert "there is an empty item between commas" in read.error("TRUSTED_PROXIES=10.0.0.1,,10.0.0.2")


def test_the_process_environment_supplies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_A", "from outside")
    assert Env()("STT_A") == "from outside"
    with pytest.raises(ConfigurationError):
        FileEnv({})("STT_A")


def test_the_process_environment_overrides_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = Reader(make_model(tmp_path))
    before = read("BEAM_SIZE=3")
    for name in ("BEAM_SIZE", "MAX_QUEUE", "CT2_SMALL_PATH", "DEVICE"):
        monkeypatch.setenv(name, "7")
    assert read("BEAM_SIZE=3") == before


def test_a_missing_file_is_not_looked_for_in_parent_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stt_primary.env").write_text("STT_WALKED=up\n")
    child = tmp_path / "child"
    child.mkdir()
    monkeypatch.delenv("STT_WALKED", raising=False)
    with monkeypatch.context() as undone:
        undone.setattr("os.environ", {})
        Env.read_envfile(str(child / "stt_primary.env"))
        assert Env()("STT_WALKED") == "up"
    with pytest.raises(ConfigError, match="No such file"):
        load(child / "stt_primary.env", "primary")
    with pytest.raises(TypeError):
        FileEnv.read_envfile(str(tmp_path / "stt_primary.env"))


def test_spaces_and_what_stands_behind_a_hash_survive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = 'MODEL_NAME="whisper small #2"'
    file = tmp_path / "x.env"
    file.write_text("MODEL_NAME=whisper small#2\n")
    with monkeypatch.context() as undone:
        undone.setattr("os.environ", {})
        Env.read_envfile(str(file))
        assert Env()("MODEL_NAME") == "whispersmall"
    assert Reader(make_model(tmp_path))(line).model_name == "whisper small #2"
