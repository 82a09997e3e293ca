"""`/mcp`: a workspace's tools for MCP clients: https://modelcontextprotocol.io/specification/2026-07-28

Rule: here is how messages look there, and nothing else. Calling a tool is `server/jobs/live_call.py`. The package
`mcp_types` is imported with the first message, and not when the server starts.
"""
