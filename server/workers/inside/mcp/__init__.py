"""MCP servers whose tools belong to a workspace: https://modelcontextprotocol.io/specification/2026-07-28

Rule: this is imported only in a worker whose generation has an `mcp.json`, and only `connection.py`, `stdio.py` and
`http.py` use the SDK's client. What a server sends is text from outside: bounded, and never a reason to fail a
reload.
"""
