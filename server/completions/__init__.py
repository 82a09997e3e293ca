"""PERSISTENT. What the model itself writes, without an agent: a turn of a conversation, or the end of a text.

Rule: nothing here knows HTTP or agents. A turn is held to a grammar, so that whatever has to have a form has it: the
calls of tools, JSON by a schema, the end at a stop text.
"""
