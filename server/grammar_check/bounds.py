"""What a grammar may cost."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLParserLimits

COMPILE_SECONDS = 0.25
"""CPU time to compile a grammar and compute its first mask. Seven tools take 0.004."""
COMPILE_BYTES = 128 * 2**20
"""Memory that compiling may allocate."""
COMPILE_STACK_BYTES = 2 * 2**20
"""Stack that compiling may use: a quarter of what a thread of the server has. llguidance goes down one level for each
rule of a chain, and ends its process where the stack does."""
DECODE_SECONDS = 0.25
TOKEN_SECONDS = 0.002
"""A text's masks may take `DECODE_SECONDS`, and `TOKEN_SECONDS` more for each token, of CPU time. An agent's take
0.00002 a token."""


def parser_limits() -> "LLParserLimits":
    """llguidance's own limits. They bound one step of a parser, and its memory (some 1 kB a lexer state), but hardly
    what compiling costs."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        step_lexer_fuel=100_000, step_max_items=20_000, max_lexer_states=30_000, verbose_errors=False
    )
