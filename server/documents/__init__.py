"""Documents: collections of texts with pages, and search by words and by meaning.

Rule: the database has the truth; the indexes here are in memory, and are made again from it. The packages of
requirements-documents.txt are imported where they are first used, and only in the server: faiss hangs after a fork.
"""

# Nothing is imported here, so that a server that serves no documents starts as fast as one without this package.
