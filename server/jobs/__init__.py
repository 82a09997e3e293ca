"""Jobs: tools that run in the background, each call in a process of its own.

Rule: a job's state changes in the database first, by compare-and-set, and then in memory. Nothing here knows HTTP.
`executor/` is the same for a script without the server, and imports nothing of the rest.
"""

# Nothing is imported here: the processes of `executor/` import this file.
