"""Parquet."""

from typing import Any

from .frame import describe_frame, left_out_columns
from .result import Analysis, File, counted, cut

_MAX_FOOTER = 16 * 1024 * 1024
_MAX_GROUP = 64 * 1024 * 1024
"""Bytes, uncompressed, of the first row group: it is decoded for the first rows."""
_FIRST = 1_000


def analyse(file: File, kind: str) -> Analysis:
    """The schema, rows and row groups from the footer; ranges and missing values from its statistics; first rows."""
    import pyarrow
    from pyarrow import parquet

    from .result import Refused

    with open(file.path, "rb") as content:
        content.seek(max(0, file.size - 8))
        end = content.read()
    if len(end) < 8 or end[4:] != b"PAR1":
        raise Refused("The Parquet file is cut off: its footer is missing.")
    if int.from_bytes(end[:4], "little") > min(_MAX_FOOTER, file.size):
        raise Refused("The Parquet file's footer is larger than 16 MiB, or than the file.")
    # The default allocator reserves address space, which limits of memory count.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    with parquet.ParquetFile(
        file.path, thrift_string_size_limit=_MAX_FOOTER, thrift_container_size_limit=1_000_000, pre_buffer=False
    ) as table:
        metadata, schema = table.metadata, table.schema_arrow
        skipped: list[str] = []
        details: dict[str, Any] = {
            "rows": metadata.num_rows,
            "column_count": len(schema),
            "row_group_count": metadata.num_row_groups,
            "created_by": metadata.created_by,
        }
        uncompressed = metadata.row_group(0).total_byte_size if metadata.num_row_groups else 0
        if metadata.num_rows > 0 and 0 <= uncompressed <= _MAX_GROUP:
            shown = [field.name for field in schema][:200]
            batch = next(
                table.iter_batches(batch_size=_FIRST, row_groups=[0], columns=shown, use_threads=False), None
            )
            if batch is not None:
                details |= describe_frame(batch.to_pandas()) | {"column_count": len(schema)}
                if metadata.num_rows > batch.num_rows:
                    skipped.append(f"Values and means are those of the first {counted(batch.num_rows, 'row')}.")
        else:
            details["columns"] = [{"name": field.name, "type": str(field.type)} for field in schema][:200]
            if metadata.num_rows:
                skipped.append("No rows were read: the first row group is larger than 64 MiB.")
        _add_statistics(details.get("columns", []), schema, metadata)
        skipped += left_out_columns(len(schema))
    summary = f"Parquet table of {counted(metadata.num_rows, 'row')} and {counted(len(schema), 'column')}"
    code = f"import pandas as pd\n\ndf = pd.read_parquet({file.name!r})"
    return Analysis("parquet", summary, details, code, skipped)


def _add_statistics(columns: list[dict[str, Any]], schema: Any, metadata: Any) -> None:
    """Types of the schema; minimum, maximum and missing values of all row groups, where the file has them."""
    types = {field.name: str(field.type) for field in schema}
    groups = range(min(metadata.num_row_groups, 200))
    places = {}
    if metadata.num_row_groups:
        first = metadata.row_group(0)
        places = {first.column(index).path_in_schema: index for index in range(min(first.num_columns, 1_000))}
    for column in columns:
        column["stored_type"] = cut(types.get(column["name"], ""), 100)
        if column["name"] not in places or len(groups) < metadata.num_row_groups:
            continue
        found = [metadata.row_group(group).column(places[column["name"]]).statistics for group in groups]
        if found and all(statistics is not None and statistics.has_null_count for statistics in found):
            column["missing"] = sum(statistics.null_count for statistics in found)
        if (
            "min" in column
            and found
            and all(statistics is not None and statistics.has_min_max for statistics in found)
        ):
            column["min"] = min(statistics.min for statistics in found)
            column["max"] = max(statistics.max for statistics in found)
