"""PERSISTENT. What the model itself writes, without an agent: a turn of a conversation, or the end of a text.

Rule: nothing here knows HTTP or agents. A text is held to a grammar, so that whatever has to have a form has it:
calls of tools, and JSON by a schema.
"""
