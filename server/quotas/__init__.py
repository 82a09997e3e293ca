"""Quotas: how much a person may use.

The rule of this folder: a quota is of a person, whatever credential a request has. It is checked before something
starts; what has started is not stopped.
"""
