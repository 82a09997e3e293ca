"""The embedded model's tokenizer, and samples as token IDs.

Byte-level BPE that never merges across words, digits, spaces and punctuation marks. So a text has the same tokens in
a question, inside JSON and in an answer, and copying a text is copying tokens. The markers of the agent's format
("\\nAction: " and so on) are one token each, which saves decoding steps.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from server.agent import prompts
from training.samples import Sample, SampleGroup, assistant_parts, conversation, system

VOCABULARY = 2048
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_MARKERS = (
    prompts.ACTION_INPUT,
    prompts.ACTION,
    prompts.OBSERVATION,
    prompts.NEXT_THOUGHT,
    prompts.ANSWER,
    prompts.THOUGHT,
)
PRE_TOKENS = "|".join(marker.replace("\n", "\\n") for marker in _MARKERS) + r"|\p{L}+|\p{N}|\s|[^\s\p{L}\p{N}]"

#: The loss weight of a token, by kind of sample. The answers of these kinds are short, so their loss would count
#: little beside that of long texts.
LOSS_WEIGHTS = {"choose": 10.0, "multi-turn": 2.0}


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learns the vocabulary from `texts`, which have no control tokens. Deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
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


class Encoder:
    """Turns samples into token IDs, exactly as the server's chat template and tokenizer do."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prefix(self, group: SampleGroup) -> list[int]:
        """The tokens that all samples of a group start with."""
        text = system(group)
        rendered = self._rendered([{"role": "system", "content": text}], add_generation_prompt=False) if text else ""
        return self(rendered + USER)

    def sample(self, group: SampleGroup, sample: Sample) -> tuple[list[int], list[float]]:
        """The tokens of a sample after the group's prefix, and the loss weight of each: 0 for what the model only
        reads."""
        messages = [message for message in conversation(group, sample) if message["role"] != "system"]
        tokens = self(self._rendered(messages, add_generation_prompt=True).removeprefix(USER))
        weight = LOSS_WEIGHTS.get(sample.kind, 1.0)
        weights = [0.0] * len(tokens)
        for text, by_model in assistant_parts(sample):
            part = self(text)
            tokens += part
            weights += [by_model * weight] * len(part)
        return [*tokens, *self(END)], [*weights, weight]

    def _rendered(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )
