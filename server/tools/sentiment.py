"""The mood of a text, judged by the model."""

import re

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, ToolException, tool

PROMPT = "Is the mood of this text positive, negative or neutral? Answer with one word.\n\n"


def build_tool(llm: BaseChatModel) -> BaseTool:
    """The tool that asks `llm`."""

    @tool
    def sentiment(text: str) -> str:
        """Tell whether the mood of a text is positive, negative or neutral."""
        reply = llm.invoke([HumanMessage(PROMPT + text)]).text
        mood = re.search(r"\b(positive|negative|neutral)\b", reply.lower())
        if mood is None:
            raise ToolException(f"The model was asked for the mood of the text and replied {reply!r}.")
        return mood[0]

    return sentiment
