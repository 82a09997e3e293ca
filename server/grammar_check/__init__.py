"""Checks grammars in a process that may die, before the server compiles them.

Any grammar, schema or regex may be hostile: one line can take minutes or gigabytes to compile, and llguidance aborts
its process when memory is short. `GrammarChecker` is what the server uses; `child` compiles one grammar within the
bounds of `bounds`. Nothing here imports torch or Flask.
"""
