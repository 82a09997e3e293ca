"""The files of a snapshot as compiled modules."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import CodeType

from server.reload.failure import ErrorReport, LoadError, describe_syntax_error, problem
from server.reload.naming import SERVER, executed_filename
from server.reload.snapshot import Snapshot


@dataclass(frozen=True)
class Source:
    """One file: `path` relative to `server/`, its bytes and text, and the code that they compile to."""

    path: str
    is_package: bool
    data: bytes
    text: str
    filename: str
    code: CodeType


def module_name(path: str) -> str:
    """`tools.calculator` for `tools/calculator.py`, `tools` for `tools/__init__.py`."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def compile_snapshot(snapshot: Snapshot, known: Mapping[str, Source]) -> dict[str, Source]:
    """Compile every file, and give them by the name of their module (`tools.calculator`).

    `known` are modules compiled earlier: those whose bytes are the same are taken from there. Raises
    `LoadError` with a report for every file that does not compile, and for every two files that claim one
    module.
    """
    sources: dict[str, Source] = {}
    errors: list[ErrorReport] = []
    for path, data in sorted(snapshot.files.items()):
        name = module_name(path)
        if name in sources:
            errors.append(_claimed_twice(path, sources[name].path))
            continue
        source = known.get(name)
        if source is None or (source.path, source.data) != (path, data):
            try:
                source = _compile(path, data)
            except (SyntaxError, ValueError) as error:
                errors.append(describe_syntax_error(error, f"{SERVER}/{path}", data))
                continue
            except (RecursionError, MemoryError) as error:
                message = f"too deeply nested to compile {error}".strip()
                errors.append(problem(f"{SERVER}/{path}", None, type(error).__name__, message))
                continue
        sources[name] = source
    for name, source in sources.items():
        holder = sources.get(name.rpartition(".")[0])
        if holder is not None and not holder.is_package:
            errors.append(_claimed_twice(source.path, holder.path))
    if errors:
        raise LoadError(errors)
    return sources


def _compile(path: str, data: bytes) -> Source:
    filename = executed_filename(path, data)
    return Source(
        path=path,
        is_package=PurePosixPath(path).name == "__init__.py",
        data=data,
        code=compile(data, filename, "exec", dont_inherit=True),
        text=importlib.util.decode_source(data),
        filename=filename,
    )


def _claimed_twice(path: str, other: str) -> ErrorReport:
    message = f"{SERVER}/{other} and {SERVER}/{path} can't both be imported: one is a module, the other a package"
    return problem(f"{SERVER}/{path}", None, "ImportError", f"{message} of the same name. Remove one of them.")
