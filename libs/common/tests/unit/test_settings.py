"""Settings come from the environment alone, and every fault is one readable line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr, ValidationError

from cryptopulse.common.config import (
    DEFAULT_SYMBOLS,
    CommaList,
    DatabaseSettings,
    ServiceSettings,
    SettingsError,
    describe,
)

SECRET = "s" * 40


class PlainSettings(ServiceSettings):
    service: ClassVar[str] = "ingestor"


class AlertSettings(DatabaseSettings):
    service: ClassVar[str] = "alerts"

    webhook_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long a webhook may take."""
    retry_minutes: tuple[int, ...] = (1, 5)
    origins: CommaList = ()
    weights: dict[str, int] = Field(default_factory=dict)
    public_port: int = Field(default=8000, validation_alias="PORT")
    jwt_secret: SecretStr | None = None


def environment(**changes: str) -> dict[str, str]:
    base = {
        "RABBITMQ_URL": "amqp://guest:hunter22@localhost:5672/",
        "REDIS_URL": "redis://localhost:6379/0",
        "DATABASE_URL": "postgresql://cp:pw@localhost/cryptopulse",
        "INTERNAL_JWT_SECRET": SECRET,
    }
    return base | changes


def faults(cls: type[ServiceSettings], environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        cls.load(environ)
    return caught.value.faults


def test_every_missing_variable_has_a_line_of_its_own() -> None:
    lines = faults(AlertSettings, {})

    assert sorted(lines) == [
        "DATABASE_URL: is required and not set",
        "INTERNAL_JWT_SECRET: is required and not set",
        "RABBITMQ_URL: is required and not set",
        "REDIS_URL: is required and not set",
    ]


def test_an_empty_variable_counts_as_not_set() -> None:
    assert faults(PlainSettings, environment(REDIS_URL="  ")) == ["REDIS_URL: is required and not set"]
    assert PlainSettings.load(environment(SHARDS="")).shards == 4


def test_a_misspelt_variable_is_refused_with_the_right_name() -> None:
    lines = faults(AlertSettings, environment(CRYPTOPULSE_ALERTS_WEBHOK_TIMEOUT_SECONDS="3"))

    (line,) = lines
    assert line.startswith("CRYPTOPULSE_ALERTS_WEBHOK_TIMEOUT_SECONDS: is not a setting of alerts; ")
    assert line.endswith("did you mean CRYPTOPULSE_ALERTS_WEBHOOK_TIMEOUT_SECONDS?")


def test_a_shared_name_with_a_prefix_is_told_apart() -> None:
    (line,) = faults(AlertSettings, environment(CRYPTOPULSE_ALERTS_REDIS_URL="redis://x"))

    assert line.endswith("did you mean REDIS_URL?")


def test_an_unknown_variable_like_no_other_points_to_the_help() -> None:
    lines = faults(AlertSettings, environment(CRYPTOPULSE_ALERTS_ZZZZ="3"))

    assert lines == [
        "CRYPTOPULSE_ALERTS_ZZZZ: is not a setting of alerts; see `python -m cryptopulse.alerts --help`"
    ]


def test_another_service_s_variables_are_none_of_our_business() -> None:
    PlainSettings.load(environment(CRYPTOPULSE_ALERTS_ZZZZ="3", CRYPTOPULSE_COMMIT="abc"))


def test_a_short_secret_is_refused_with_the_command_that_makes_one() -> None:
    (line,) = faults(PlainSettings, environment(INTERNAL_JWT_SECRET="short-but-secret"))

    assert line == (
        "INTERNAL_JWT_SECRET: has 16 bytes, at least 32 are needed; make one with: openssl rand -base64 48"
    )


def test_no_fault_repeats_a_value() -> None:
    lines = faults(
        AlertSettings,
        environment(
            RABBITMQ_URL="http://user:hunter22@host/",
            DATABASE_URL="postgresql://u:hunter22@[bad/x",
            INTERNAL_JWT_SECRET="hunter22",
            CRYPTOPULSE_ALERTS_WEIGHTS="{hunter22",
            SHARDS="hunter22",
        ),
    )

    assert len(lines) == 5
    assert "hunter22" not in "\n".join(lines)


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = AlertSettings.load(environment(JWT_SECRET="very-secret-value-of-32-bytes-xx"))

    shown = f"{settings!r} {settings} {settings.model_dump_json()}"

    assert SECRET not in shown
    assert "hunter22" not in shown
    assert "very-secret" not in shown


def test_a_refused_value_does_not_show_when_settings_are_made_by_hand() -> None:
    with pytest.raises(ValidationError) as caught:
        PlainSettings(rabbitmq_url="amqp://x", redis_url="redis://x", internal_jwt_secret="hunter22")  # type: ignore[arg-type] # as a careless caller would

    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_spellings_of_postgres_work(scheme: str) -> None:
    settings = AlertSettings.load(environment(DATABASE_URL=f"{scheme}://cp@localhost/x"))

    assert settings.database_url.get_secret_value() == f"{scheme}://cp@localhost/x"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "mysql://x/y", "must begin with postgresql:// or postgres://"),
        ("DATABASE_URL", "postgresql:///x", "names no host"),
        ("REDIS_URL", "localhost:6379", "must begin with redis:// or rediss:// or unix://"),
        ("RABBITMQ_URL", "amqp://u:p/w@h:port/", "is not a URL that can be read"),
        ("SYMBOLS", "BTCUSD", "is not a symbol of the form BASE-QUOTE"),
        ("SYMBOLS", " , ", "names no symbol"),
        (
            "SYMBOLS",
            "BTC-USD,top:0",
            "'top:0' is no choice of symbols; give a comma list of BASE-QUOTE, all:",
        ),
        ("SYMBOLS", "top:5001", "is no choice of symbols"),
        ("SYMBOLS", "top:", "is no choice of symbols"),
        ("SYMBOLS", "all:", "is no choice of symbols"),
        ("SYMBOLS", "all:US DT", "is no choice of symbols"),
        ("SYMBOLS", "best:3", "is no choice of symbols"),
        ("FEED", "binance", "input should be 'auto', 'live' or 'sim'"),
        ("LOG_LEVEL", "loud", "input should be 'debug', 'info', 'warning' or 'error'"),
        ("SHARDS", "0", "input should be greater than or equal to 1"),
        ("CRYPTOPULSE_ALERTS_WEBHOOK_TIMEOUT_SECONDS", "-1", "input should be greater than 0"),
        ("CRYPTOPULSE_ALERTS_RETRY_MINUTES", "1,x", "should be a valid integer"),
        ("CRYPTOPULSE_ALERTS_WEIGHTS", "{", "is not JSON"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be a URL such as"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:p@collector:4318", "must not hold credentials"),
        ("PORT", "http", "should be a valid integer"),
    ],
)
def test_a_malformed_value_is_named_with_what_is_wanted(name: str, value: str, words: str) -> None:
    (line,) = faults(AlertSettings, environment(**{name: value}))

    assert line.startswith(f"{name}: ")
    assert words in line


def test_all_faults_are_told_at_once() -> None:
    environ = environment(SHARDS="many", CRYPTOPULSE_ALERTS_ORIGIN="x", CRYPTOPULSE_ALERTS_WEIGHTS="{")
    del environ["REDIS_URL"]

    assert len(faults(AlertSettings, environ)) == 4


def test_values_are_read_under_their_names() -> None:
    settings = AlertSettings.load(
        environment(
            SYMBOLS="btc-usd, ETH-USDT,BTC-USD",
            CRYPTOPULSE_ALERTS_RETRY_MINUTES="2, 4,8",
            CRYPTOPULSE_ALERTS_ORIGINS="https://a, https://b",
            CRYPTOPULSE_ALERTS_WEIGHTS='{"a": 1}',
            CRYPTOPULSE_ALERTS_HOST="0.0.0.0",
            PORT="8123",
            LOG_LEVEL="WARNING",
        )
    )

    assert settings.symbols == ("BTC-USD", "ETH-USDT")
    assert settings.retry_minutes == (2, 4, 8)
    assert settings.origins == ("https://a", "https://b")
    assert settings.weights == {"a": 1}
    assert settings.host == "0.0.0.0"
    assert settings.public_port == 8123
    assert settings.log_level == "warning"


def test_every_service_takes_the_choices_that_only_the_ingestor_resolves() -> None:
    settings = AlertSettings.load(environment(SYMBOLS="TOP:0100, all:usdt,btc-usd,ALL:USDT,top:5000"))

    assert settings.symbols == ("top:100", "all:USDT", "BTC-USD", "top:5000")


def test_defaults_are_those_of_the_house() -> None:
    settings = AlertSettings.load(environment())

    assert settings.port == 9103
    assert settings.shards == 4
    assert settings.symbols == DEFAULT_SYMBOLS
    assert len(DEFAULT_SYMBOLS) == 20
    assert AlertSettings.facts().schema == "alerts"
    assert AlertSettings.facts().role == "cryptopulse_alerts"


def test_a_file_named_dot_env_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("SHARDS=9\nREDIS_URL=redis://from-file/0\n")
    monkeypatch.chdir(tmp_path)
    environ = environment()
    del environ["REDIS_URL"]

    assert faults(PlainSettings, environ) == ["REDIS_URL: is required and not set"]
    assert PlainSettings.load(environment()).shards == 4


def test_the_description_lists_every_variable_once() -> None:
    variables = {variable.name: variable for variable in describe(AlertSettings)}

    assert len(variables) == len(AlertSettings.model_fields)
    assert variables["RABBITMQ_URL"].required
    assert variables["RABBITMQ_URL"].secret
    assert variables["RABBITMQ_URL"].default is None
    assert variables["CRYPTOPULSE_ALERTS_PORT"].default == "9103"
    assert (
        variables["CRYPTOPULSE_ALERTS_WEBHOOK_TIMEOUT_SECONDS"].description == "How long a webhook may take."
    )
    assert variables["CRYPTOPULSE_ALERTS_RETRY_MINUTES"].default == "1,5"
    assert variables["PORT"].field == "public_port"
    assert variables["JWT_SECRET"].secret


def test_the_defaults_that_are_described_are_valid_and_the_same() -> None:
    given = {v.name: v.default for v in describe(AlertSettings) if v.default}

    assert AlertSettings.load(environment(**given)) == AlertSettings.load(environment())
