"""Everything that Hearth loads from outside: pages, files, pictures, and results of search engines.

Rule: `fetch.py` has the one function that opens a connection to an address which a person, a model or a page has
chosen. It checks each address at the moment of the connection. What comes back is hostile until it was read in the
sandbox, and a model reads it between marks that it can't forge (`server/sdk/untrusted.py`). Workers ask over their
channel (`calls.py`), and hold no keys.
"""
