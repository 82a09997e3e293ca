"""People's files: each session has a folder, which requests fill and the sandbox's code changes.

Rule: what lies in such a folder is hostile. Nothing here follows a link in it, and nothing here parses a file of it;
that is done in the sandbox.
"""
