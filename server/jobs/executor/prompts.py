"""The texts that the agent's model reads."""

PREFIX = "Answer the user as helpfully and accurately as possible. You have these tools:"

FORMAT_INSTRUCTIONS = """To act, write one JSON object in a fenced block, with the keys "action" and "action_input":

```json
{{"action": TOOL_NAME, "action_input": INPUT}}
```

"action" is "Final Answer" or one of: {tool_names}. "action_input" is an object with the tool's arguments.

Write one action at a time. Its result comes back as an observation. When you know what to say, write:

```json
{{"action": "Final Answer", "action_input": "the answer to the user"}}
```"""

SUFFIX = """A tool that runs in the background returns the name of a job (job_id) at once. You may give a final \
answer while jobs run: the system sends you a message when one ends. Several jobs may run at the same time."""

BACKGROUND_NOTE = "It runs in the background."

USER_PROMPT = "{input}{scratchpad}"
"""The last message of the user's turn."""

SYSTEM_PROMPT = """This message comes from the system, not from the user:

{input}

Tell the user what matters of it, or act.{scratchpad}"""
"""The last message of a system turn. Many chat models refuse a system message in the middle of a conversation, so it
is a human message that says where it comes from."""

SCRATCHPAD = """

These are your steps so far. The user sees only your final answer.
{steps}"""

STEP = """{log}
Observation: {observation}"""

STARTED = "Running {tool} in the background with job_id {job_id}."

INVALID_TOOL = "{tool} is not a tool. The tools are: {names}."

UNREADABLE = "That can't be read: {problem} Write one JSON object with an action in a fenced block."

GAVE_UP = "I stopped after {steps} steps without an answer."

REPAIR = """This text should follow the instructions below, but it can't be read: {problem}

Instructions:
{instructions}

Text:
{text}

Write the corrected text and nothing else."""
