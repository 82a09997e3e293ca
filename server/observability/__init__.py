"""What the server says about itself: log lines, metrics, traces, and the secrets that appear in none of them.

Rule: nothing here imports another part of the server but `server.sdk`.
"""
