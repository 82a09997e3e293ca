"""The sandbox, in which code runs that a language model wrote: an interpreter for each session, without a network,
with one folder, and with limits that hold.

Rule: whatever comes from inside, messages, output and files, is input from a stranger. `inside/` is what runs there.
"""
