"""Settings: what is taken, and what stops the start."""

import subprocess
import sys
from pathlib import Path

import pytest

from constants import Settings, SettingsError, is_loopback, read_settings
from tests.support.server_process import REPOSITORY, clean_environment


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no `.env` of whoever runs the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HEARTH_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_defaults() -> None:
    settings = read_settings()
    assert (settings.HOST, settings.PORT, settings.MODEL) == ("0.0.0.0", 5001, "embedded")
    assert settings.LOAD_IN_8BIT == "auto"
    assert settings.AUTOLOAD is True


def test_every_setting_says_what_it_means() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_token_is_made_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = read_settings().TOKEN, read_settings().TOKEN
    assert len(first) > 30 and first != second
    monkeypatch.setenv("HEARTH_TOKEN", "mine")
    assert read_settings().TOKEN == "mine"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HEARTH_PORT=6001\nHEARTH_MODEL=some/folder\nUNRELATED=1\n")
    assert (read_settings().PORT, read_settings().MODEL) == (6001, "some/folder")
    monkeypatch.setenv("HEARTH_PORT", "7001")
    assert (read_settings().PORT, read_settings().MODEL) == (7001, "some/folder")


@pytest.mark.parametrize(
    ("text", "value"),
    [("auto", "auto"), ("AUTO", "auto"), ("true", True), ("1", True), ("0", False), ("no", False)],
)
def test_8bit_is_a_switch_with_a_third_position(monkeypatch: pytest.MonkeyPatch, text: str, value: object) -> None:
    monkeypatch.setenv("HEARTH_LOAD_IN_8BIT", text)
    assert value == read_settings().LOAD_IN_8BIT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", ""),
        ("HOST", ""),
        ("MODEL", ""),
        ("BACKGROUND_MODEL", "embedded"),
        ("LOAD_IN_8BIT", "maybe"),
        ("DTYPE", "float16"),
        ("LLM_INT8_THRESHOLD", "-1"),
        ("LLM_INT8_THRESHOLD", "nan"),
        ("AUTOLOAD", "perhaps"),
        ("CORS_ORIGINS", "localhost"),
        ("CORS_ORIGINS", "https://lab.example/path"),
        ("CORS_ORIGINS", "https://*.example"),
        ("CORS_ORIGINS", "app://"),
        ("CORS_ORIGINS", "app:x"),
        ("HOSTS", "https://hearth.example.org"),
        ("HOSTS", "hearth.example.org:443"),
        ("TRUSTED_PROXIES", "proxy.example.org"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("LOG_LEVEL", "LOUD"),
        ("MAX_STEPS", "0"),
        ("MAX_STEPS", "33"),
        ("MAX_RUNS", "0"),
        ("MAX_RUNS", "1.5"),
        ("TOOL_TIMEOUT", "0"),
        ("RELOAD_TIMEOUT", "inf"),
        ("SHUTDOWN_GRACE", "-1"),
        ("MAX_BODY_BYTES", "10"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HEARTH_{name}", value)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    message = str(caught.value)
    assert message.startswith(f"HEARTH_{name} is {value!r}. ")
    assert f"It takes: {Settings.model_fields[name].description}" in message
    assert "\n" not in message


def test_a_certificate_and_its_key_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_TLS_CERT", "cert.pem")
    with pytest.raises(SettingsError, match="HEARTH_TLS_KEY belong together"):
        read_settings()
    monkeypatch.setenv("HEARTH_TLS_KEY", "key.pem")
    assert Path.cwd() / "key.pem" == read_settings().TLS_KEY


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_PORT", "abc")
    monkeypatch.setenv("HEARTH_MAX_RUNS", "x" * 10_000)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    first, second = str(caught.value).splitlines()
    assert first.startswith("HEARTH_PORT ") and second.startswith("HEARTH_MAX_RUNS ")
    assert len(second) < 1000


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
        ("gpubox", False),
    ],
)
def test_no_token_only_where_nobody_else_is(monkeypatch: pytest.MonkeyPatch, host: str, alone: bool) -> None:
    assert is_loopback(host) is alone
    monkeypatch.setenv("HEARTH_TOKEN", "")
    monkeypatch.setenv("HEARTH_HOST", host)
    if alone:
        assert read_settings().TOKEN == ""
        return
    with pytest.raises(SettingsError, match=r"HEARTH_TOKEN is empty.*HEARTH_HOST is") as caught:
        read_settings()
    assert "HEARTH_HOST=127.0.0.1" in str(caught.value)


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_TOKEN", "mine")
    assert "mine" not in repr(read_settings())
    monkeypatch.setenv("HEARTH_TOKEN", "mine and yours")
    with pytest.raises(SettingsError, match="HEARTH_TOKEN is a secret value") as caught:
        read_settings()
    assert "yours" not in str(caught.value)


@pytest.mark.parametrize("url", ["gpubox:8000", "http://me:secret@gpubox:8000", "https://gpubox/v1?key=secret"])
def test_a_url_may_hold_no_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HEARTH_BASE_URL", url)
    with pytest.raises(SettingsError, match="HEARTH_BASE_URL is a secret value") as caught:
        read_settings()
    assert "secret@" not in str(caught.value) and "key=secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "abc"}, "HEARTH_PORT is 'abc'"),
        ({"TOKEN": "", "HOST": "0.0.0.0"}, "HEARTH_TOKEN is empty"),
        ({"TOKEN": "mine and yours"}, "HEARTH_TOKEN is a secret value"),
    ],
)
def test_a_bad_value_stops_the_start(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "app.py")],
        env=clean_environment(tmp_path, settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(said)
    assert ended.stdout == ""
    for unwanted in ("Traceback", "pydantic", "yours"):
        assert unwanted not in ended.stderr
