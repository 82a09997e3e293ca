"""Completions of the model itself, without an agent: the next message of a conversation, or the
continuation of a text.

Rule: nothing here knows HTTP or agents. A grammar guarantees the form of tool calls and of JSON by a schema.
"""
