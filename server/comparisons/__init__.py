"""Comparisons: two versions of code, model or prompt answer the same questions, and what differs is counted.

Rule: an answer is saved before it is counted or reported, so a comparison that is stopped loses none, and continues
with the questions that have no answer yet. Nothing here knows HTTP.
"""
