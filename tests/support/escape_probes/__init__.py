"""Attempts to leave the sandbox. Each succeeds outside of it; that is its control.

A test copies this folder into the session's folder, and into another one for the control, and calls `probe.run` in
both. So it imports nothing but the standard library and itself.
"""
