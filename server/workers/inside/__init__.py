"""What runs inside the template, the guards and the workers. The server's process uses only what `guard.py` and
`isolation.py` define for both sides.

Rule: of Hearth, the code here imports `server.sdk`, `server.errors`, `server.bounds`, `server.grammar_check`,
`messages.py` and `failure.py` of the folder above, and this folder itself. It is in the memory of every worker, and
is imported once, in the template.
"""
