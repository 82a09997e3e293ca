"""Every setting of Hearth: its name, default, unit and meaning.

`HEARTH_<NAME>` in the environment overrides a default, and so does a line of that name in a file `.env` in
the folder that Hearth is started from; the environment wins. A value that does not fit stops the start.
"""

import ipaddress
import re
import secrets
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "HEARTH_"
LONGEST_SHOWN_VALUE = 200
MAY_HOLD_SECRETS = ("TOKEN", "BASE_URL", "DATABASE_URL")
"""Settings whose values aren't shown: people write passwords into URLs."""


class SettingsError(ValueError):
    """A setting does not fit. The message names the variable, what it got and what it takes."""


def _check_base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("It is no URL like http://gpubox:8000/v1, without a password and without a ? or #")
    return url


BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
"""Where a server's API is."""


class Settings(BaseSettings):
    """The settings, read once at the start and handed to whoever needs them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    HOST: str = Field("0.0.0.0", min_length=1, description="address to listen on; 0.0.0.0 is every one")
    PORT: int = Field(5001, ge=0, le=65535, description="TCP port to listen on; 0 is any free one")
    TOKEN: str = Field(
        default_factory=lambda: secrets.token_urlsafe(32),
        pattern=r"^[\x21-\x7e]*$",
        repr=False,
        description="what a caller must know, without spaces; made at start unless it is set; "
        "empty: no check, and HOST must be a loopback address",
    )
    CORS_ORIGINS: Annotated[tuple[str, ...], NoDecode] = Field(
        tuple(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")),
        description="origins of the web pages that may call the server, with commas between, like "
        "https://lab.example.org; a port may be *, and a single * is every page",
    )
    MAX_BODY_BYTES: int = Field(
        # The longest question, of nothing but characters that JSON may write in 12 bytes, has to fit.
        2 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="longest request body that is taken, in bytes",
    )

    DATA_DIR: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("hearth"),
        description="folder for what is kept: generations, runs, sessions, workspaces",
    )
    DATABASE_URL: str | None = Field(
        None,
        repr=False,
        description="PostgreSQL database for generations, runs and sessions, like "
        "postgresql://user:password@host/name; a SQLite file in DATA_DIR unless it is set",
    )
    WORKSPACES_DIR: Path | None = Field(
        None,
        description="folder of the workspaces, each laid out like server/; in DATA_DIR unless it is set",
    )

    MODEL: str = Field(
        "embedded",
        min_length=1,
        description="model to load: embedded, a Hugging Face id, a local folder or GGUF file, or one behind an API, "
        "like openai:NAME",
    )
    BASE_URL: BaseUrl | None = Field(
        None,
        description="where openai: models are asked: the URL of vLLM, SGLang, llama.cpp's server or LocalAI, like "
        "http://gpubox:8000/v1; OpenAI itself unless it is set",
    )
    BACKGROUND_MODEL: str = Field(
        "",
        description="model behind an API that does what nobody waits for, like openai:NAME; empty: the one that is "
        "loaded, when it has nothing else to do",
    )
    LOAD_IN_8BIT: Literal["auto"] | bool = Field(
        "auto",
        description="8-bit weights: true, false, or auto: on a CUDA GPU, and not on the CPU",
    )
    QUANTIZER: Literal["bitsandbytes", "torchao", "torchao_fp8"] = Field(
        "bitsandbytes",
        description="what makes 8-bit weights: bitsandbytes, which multiplies in 8 bit, or torchao or torchao_fp8, "
        "which store integers or floats of 8 bit and multiply in DTYPE",
    )
    DEVICE_MAP: str = Field(
        "auto", min_length=1, description="where accelerate puts the model: auto, cpu, cuda, cuda:1, ..."
    )
    DTYPE: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="type of the weights that aren't 8-bit; auto: bfloat16 on CUDA, float32 on the CPU",
    )
    LLM_INT8_THRESHOLD: float = Field(
        6.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="with bitsandbytes: activations above it stay in full precision; 0: none do, faster",
    )
    KV_MEMORY_GB: float | None = Field(
        None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="what KV memory may take at most, in GiB; unset: four fifths of what the GPU has free when the "
        "model is loaded, on the CPU a quarter of the free memory",
    )
    RELOAD: Literal["explicit", "on_request", "watch"] = Field(
        "explicit",
        description="when changed code is taken over: when asked to (explicit), before each question as well "
        "(on_request), or as soon as a file is saved as well (watch)",
    )
    AUTOLOAD: bool = Field(True, description="load model and tools in the background at the start")

    MAX_STEPS: int = Field(
        6, ge=1, le=32, description="tool calls that a question may take, unless it says otherwise itself"
    )
    MAX_RUNS: int = Field(
        256,
        ge=1,
        le=1024,
        description="questions in flight, those that wait for their turn among them; one more is answered with 429",
    )
    MAX_CONCURRENT_RUNS: int = Field(
        # As many free rows of KV memory as the engine remembers, so that each run finds its text again after a tool's
        # work. Fewer leave the model idle meanwhile; with more, each answer takes longer.
        16,
        ge=1,
        le=1024,
        description="questions that are answered at a time; the others wait for their turn",
    )
    MAX_TOKENS: int = Field(
        32_768,
        ge=1,
        le=100_000_000,
        description="tokens that a question may have written, by model or grammar, unless it asks for less",
    )
    RUN_TIMEOUT: float = Field(
        600,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="longest that a question may take once it has its turn, in seconds, unless it asks for less",
    )
    TOOL_TIMEOUT: float = Field(
        30,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="longest that one tool call may take, in seconds",
    )
    RELOAD_TIMEOUT: float = Field(
        20,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="longest that importing new code and building its tools may take, in seconds",
    )
    CANARY: bool = Field(
        False,
        description="load new code in a process of its own first, so that code that crashes can't take the server "
        "down; a reload takes seconds then",
    )
    SHUTDOWN_GRACE: float = Field(
        10,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="how long questions may go on after SIGTERM before they are cancelled, in seconds",
    )
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="the least grave lines that are logged"
    )

    @field_validator("DATA_DIR", "WORKSPACES_DIR")
    @classmethod
    def _expand(cls, folder: Path | None) -> Path | None:
        return None if folder is None else folder.expanduser().absolute()

    @field_validator("DATABASE_URL")
    @classmethod
    def _check_database(cls, url: str | None) -> str | None:
        if url is None:
            return None
        # Late: it takes longer to import than all else here.
        from sqlalchemy import make_url

        try:
            parsed = make_url(url)
        except Exception:  # what it says may have the password in it
            parsed = None
        if parsed is None or parsed.drivername != "postgresql" or not parsed.database:
            raise ValueError("It can't be read as the URL of a PostgreSQL database")
        if "@" in f"{parsed.host}{parsed.database}":
            # Or half a password would be taken for a host, and be shown as one.
            raise ValueError("An @ in the password has to be written as %40")
        return url

    @field_validator("BACKGROUND_MODEL")
    @classmethod
    def _check_background(cls, name: str) -> str:
        if name and ":" not in name:
            raise ValueError("It has to be behind an API")
        return name

    @field_validator("LOAD_IN_8BIT", "QUANTIZER", "DTYPE", "RELOAD", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("LOG_LEVEL", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("CORS_ORIGINS", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @field_validator("CORS_ORIGINS")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"\*|https?://[^/*\s]+(:\*)?", origin):
                raise ValueError(f"{origin!r} is not an origin: scheme://host or scheme://host:port, and no path")
        return origins

    @model_validator(mode="after")
    def _need_token(self) -> Self:
        if not self.TOKEN and not is_loopback(self.HOST):
            raise ValueError(
                "HEARTH_TOKEN is empty, which turns the check of the token off, and HEARTH_HOST is "
                f"{self.HOST}, which others can reach. Set HEARTH_HOST=127.0.0.1, or give HEARTH_TOKEN a "
                "value, or unset it."
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine as only it can see it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings() -> Settings:
    """The settings from the environment and `.env`. Raises `SettingsError`, naming all that do not fit."""
    try:
        return Settings()
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():
            if not problem["loc"]:
                lines[""] = problem["msg"].removeprefix("Value error, ")
                continue
            name = str(problem["loc"][0])
            got = "a value that is kept secret" if name in MAY_HOLD_SECRETS else _shortened(problem["input"])
            reason = problem["msg"].removeprefix("Value error, ")
            takes = Settings.model_fields[name].description
            # A union has a problem for each of its members, and its description names them all.
            lines[name] = f"{PREFIX}{name} is {got}. {reason}. It takes: {takes}."
        raise SettingsError("\n".join(lines.values())) from error


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN_VALUE else text[:LONGEST_SHOWN_VALUE] + "..."
