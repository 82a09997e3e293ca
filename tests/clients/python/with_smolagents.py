"""smolagents: a ToolCallingAgent calls the right tool, whole and as a stream; stop texts.

Its agents must end by calling `final_answer`, which the embedded model was not trained to do.
"""

from smolagents import ActionStep, ChatMessage, MessageRole, OpenAIModel, ToolCallingAgent, tool

QUESTION = "What is 37 * 52?"
asked: list[str] = []


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression.

    Args:
        expression: the expression
    """
    asked.append(expression)
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = OpenAIModel("hearth", temperature=0, max_tokens=100)
for streams in (False, True):
    # A single step: the embedded model was not trained to end by calling `final_answer`, as these agents must.
    agent = ToolCallingAgent(tools=[calculator], model=model, max_steps=1, stream_outputs=streams, verbosity_level=-1)
    agent.run(QUESTION)
    [step] = [one for one in agent.memory.steps if isinstance(one, ActionStep) and one.tool_calls]
    assert step.error is None and step.observations == "1924", step
    assert step.token_usage is not None and step.token_usage.output_tokens > 0, step
assert asked == ["37 * 52"] * 2, asked

question = ChatMessage(MessageRole.USER, [{"type": "text", "text": "hello"}])
whole = model.generate([question]).content
assert isinstance(whole, str) and len(whole) > 4, whole
assert model.generate([question], stop_sequences=[whole[3:5]]).content == whole.partition(whole[3:5])[0]
