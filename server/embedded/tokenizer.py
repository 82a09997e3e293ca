"""The embedded model's tokenizer: byte-level BPE over pieces that never depend on what stands around them.

A word, a digit, a space and a punctuation mark are each a piece of their own, so a text has the same tokens in a
question, inside JSON and in an answer, and copying it is copying tokens. The marks of the agent's format
("\\nAction: ", …) are one piece each, which saves decoding steps.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from server.agent import prompts

VOCABULARY = 2048
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_MARKS = (
    prompts.ACTION_INPUT,
    prompts.ACTION,
    prompts.OBSERVATION,
    prompts.NEXT_THOUGHT,
    prompts.ANSWER,
    prompts.THOUGHT,
)
PIECES = "|".join(mark.replace("\n", "\\n") for mark in _MARKS) + r"|\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learns the vocabulary from `texts` (without control tokens). Deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
