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

    HOST: str = Field("0.0.0.0", min_length=1, description="address to listen on; 0.0.0.0 is every address")
    PORT: int = Field(5001, ge=0, le=65535, description="TCP port to listen on; 0 is any free port")
    TOKEN: str = Field(
        default_factory=lambda: secrets.token_urlsafe(32),
        pattern=r"^[\x21-\x7e]*$",
        repr=False,
        description="bearer token that clients send, without spaces; unset: a new one at each start; empty: no "
        "check, and HOST must be a loopback address",
    )
    CORS_ORIGINS: Annotated[tuple[str, ...], NoDecode] = Field(
        tuple(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")),
        description="origins of web pages that may call the server, separated by commas, like "
        "https://lab.example.org; the port may be *, and a single * is every page",
    )
    MAX_BODY_BYTES: int = Field(
        # The longest question, of nothing but characters that JSON may write in 12 bytes, has to fit.
        2 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="maximum size of a request body, in bytes",
    )

    DATA_DIR: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("hearth"),
        description="folder for saved data: generations, runs, sessions, workspaces, values of keep",
    )
    DATABASE_URL: str | None = Field(
        None,
        repr=False,
        description="PostgreSQL database for generations, runs and sessions, like "
        "postgresql://user:password@host/name; unset: a SQLite file in DATA_DIR",
    )
    WORKSPACES_DIR: Path | None = Field(
        None,
        description="folder of the workspaces, each laid out like server/; unset: workspaces/ in DATA_DIR",
    )

    MODEL: str = Field(
        "embedded",
        min_length=1,
        description="model to load at the start: embedded, a Hugging Face id, a local folder or GGUF file, or a "
        "remote model, like openai:NAME",
    )
    BASE_URL: BaseUrl | None = Field(
        None,
        description="address of the API for openai: models, like http://gpubox:8000/v1 (vLLM, SGLang, llama.cpp's"
        " server, LocalAI); unset: OpenAI",
    )
    BACKGROUND_MODEL: str = Field(
        "",
        description="remote model for background work (titles and notes of sessions), like openai:NAME; empty: "
        "the loaded model, at the priority batch",
    )
    LOAD_IN_8BIT: Literal["auto"] | bool = Field(
        "auto",
        description="8-bit weights: true, false, or auto: on a CUDA GPU, and not on the CPU",
    )
    QUANTIZER: Literal["bitsandbytes", "torchao", "torchao_fp8"] = Field(
        "bitsandbytes",
        description="library for 8-bit weights: bitsandbytes, which multiplies in 8 bit, or torchao or "
        "torchao_fp8, which store 8-bit integers or floats and multiply in DTYPE",
    )
    DEVICE_MAP: str = Field(
        "auto", min_length=1, description="device for the model, as accelerate takes it: auto, cpu, cuda, cuda:1, ..."
    )
    DTYPE: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="type of the weights that are not 8-bit; auto: bfloat16 on CUDA, float32 on the CPU",
    )
    LLM_INT8_THRESHOLD: float = Field(
        6.0,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="with bitsandbytes: activations above it stay in full precision; 0: none do, which is faster",
    )
    KV_MEMORY_GB: float | None = Field(
        None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="maximum size of the KV cache, in GiB; unset: four fifths of the GPU's free memory when the "
        "model is loaded, on the CPU a quarter of the free memory",
    )
    RELOAD: Literal["explicit", "on_request", "watch"] = Field(
        "explicit",
        description="when changed code is loaded: explicit, when a client asks for it; on_request, also before "
        "each question; watch, also when a file is saved",
    )
    AUTOLOAD: bool = Field(True, description="load model and tools in the background at the start")

    MAX_STEPS: int = Field(
        6, ge=1, le=32, description="maximum number of tool calls for a question that does not say one itself"
    )
    MAX_RUNS: int = Field(
        256,
        ge=1,
        le=1024,
        description="maximum number of questions in flight, waiting ones included; the next one gets 429",
    )
    MAX_CONCURRENT_RUNS: int = Field(
        # As many free rows of KV memory as the engine remembers, so that each run finds its text again after a tool's
        # work. Fewer leave the model idle meanwhile; with more, each answer takes longer.
        16,
        ge=1,
        le=1024,
        description="maximum number of questions that are answered at the same time; the others wait",
    )
    MAX_TOKENS: int = Field(
        32_768,
        ge=1,
        le=100_000_000,
        description="maximum number of tokens that a question may write, by model or grammar; a question may ask "
        "for fewer",
    )
    RUN_TIMEOUT: float = Field(
        600,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="maximum time for a question after it has left the queue, in seconds; a question may ask for "
        "less",
    )
    TOOL_TIMEOUT: float = Field(
        30,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="maximum time for one tool call, in seconds",
    )
    RELOAD_TIMEOUT: float = Field(
        20,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="maximum time for importing new code, and again for building its tools, in seconds",
    )
    WORKER_MEMORY_GB: float | None = Field(
        None,
        gt=0,
        le=10_000,
        allow_inf_nan=False,
        description="memory that each process of people's code may allocate after its start, in GiB; on Linux "
        "only; unset: no limit",
    )
    WORKER_NICENESS: int = Field(
        10,
        ge=0,
        le=19,
        description="niceness of workers, added to the server's: a higher number is a lower priority",
    )
    WORKER_IDLE: float = Field(
        600,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="time without a question after which a workspace's worker ends, in seconds; the next question"
        " starts it again; the worker of main stays",
    )
    WORKER_START: Literal["auto", "fork", "spawn"] = Field(
        "auto",
        description="how workers start: fork, from a process that has loaded the usual packages (milliseconds); "
        "spawn, as new programs (seconds); auto: fork on Linux, spawn elsewhere",
    )
    SHUTDOWN_GRACE: float = Field(
        10,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="time that questions have to end after SIGTERM before they are cancelled, in seconds",
    )
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum log level")

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

    @field_validator("LOAD_IN_8BIT", "QUANTIZER", "DTYPE", "RELOAD", "WORKER_START", mode="before")
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
