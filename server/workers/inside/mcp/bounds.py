"""How much of what an MCP server sends a worker takes."""

LONGEST_MESSAGE = 8 * 1024 * 1024
"""Bytes of one message."""
MOST_TOOLS = 500
"""Of one server."""
MOST_PAGES = 100
"""Of one list of tools."""
LONGEST_DESCRIPTION = 4_000
LONGEST_NAME = 128
LONGEST_SCHEMA = 64 * 1024
"""Characters of a tool's arguments as JSON."""
LONGEST_REASON = 400
LONGEST_FAILURE = 20_000
"""Characters of a failed call's message."""
