"""What runs in the sandbox's processes.

Rule: only the standard library, the packages that people compute with, and each other by relative imports: the rest
of Hearth is not there. Everything that is imported before a session's code runs is trusted; nothing is afterwards.
"""
