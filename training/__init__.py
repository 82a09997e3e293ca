"""Trains and scores the embedded model. Nothing in the server imports this package; README.md says how to use it.

The way of a sample: a template of `phrasings/` becomes a question (`phrasing`, `words`) with the tool calls and the
answer that are right for it (`shipped_questions`, `shipped_tools`, `two_calls`, `synthetic_tools`,
`synthetic_questions`, `handwritten_tools`, `no_tool`). Some samples become parts of plans (`compound_questions`,
`plans`) or of conversations (`multi_turn`). `corpus` mixes them into groups that share one list of tools (`samples`).
`tokenizer` makes token IDs of these and `batches` packs them for `packed_forward`, with which `train` trains.
`evaluate` scores the result on held-out phrasings and on `test_sets/`.

The rule: prompts are the agents' own (`server.agent.prompts`), and a seed determines the corpus.
"""
