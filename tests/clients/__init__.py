"""Clients of OpenAI's API, each asked against a real server: `make test-clients`, which prints the table of
docs/clients.md.

Rule: a folder is an environment, and its file of packages pins what its scripts import. A script is a program of its
own. It reads `OPENAI_BASE_URL` and `OPENAI_API_KEY`, checks what it got, and contacts nothing else. Its head says
which package it asks with and what it does; what users of the package have to know comes after that.
"""
