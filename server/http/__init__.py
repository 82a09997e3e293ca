"""Everything that knows HTTP.

Rule: one blueprint a file; a view parses, calls, returns. A blueprint is made by a function that is handed
the host. The others are what stands before every view: the token, reading JSON, the request's line in the
log, the socket.
"""
