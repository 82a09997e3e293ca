"""The API that OpenAI's clients speak, under `/v1`: https://platform.openai.com/docs/api-reference

Rule: here is how requests and answers look there, and nothing else. What is asked for is a run like any other, of an
agent or of the model itself (`server/completions`).
"""
