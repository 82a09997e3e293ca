"""The API that Anthropic's clients speak, under `/v1/messages`: https://docs.anthropic.com/en/api/messages

Rule: here is how requests, answers and errors look there. Runs are made as in `server/http/openai`.
"""
