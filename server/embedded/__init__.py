"""The model in the box: its weights, and the recipe that made them.

`weights/` is an ordinary Transformers folder; nothing else here is needed to serve. The rest makes questions with
known answers (words, phrasings/, phrasing → arithmetic, units, dates, texts → shipped, two_steps; invented_tools →
invented; direct → corpus), turns them into tokens and trains on them (tokenizer, train), and scores the outcome with
the real agent, engine and tools (evaluate). The prompt is the agent's own, from server/agent/prompts.py.
"""
