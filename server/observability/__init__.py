"""What the server says about itself: log lines, metrics, and the secrets that appear in neither.

Rule: nothing here imports another part of the server but `server.sdk`.
"""
