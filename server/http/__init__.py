"""Everything that knows HTTP.

Rule: one blueprint a file; a view parses, calls, returns. A function makes the blueprint and gets the host. The other
files serve every view: authentication, JSON bodies, the request log, server-sent events, the socket.
"""
