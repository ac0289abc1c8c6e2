"""Between tokens and text: prompts in, text and words out."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from transcribe.engine.chunks import EngineError
from transcribe.engine.model.config import SpecialTokens

PROMPT_TOKENS = 223  # half the decoder's context, less the token that marks a prompt
HOTWORD_TOKENS = PROMPT_TOKENS // 2
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages that are written without spaces
REPLACEMENT = "�"  # of bytes that are no whole character


def load_tokenizer(model_dir: Path) -> Tokenizer:
    """The fast tokenizer of a model directory; made through transformers when only the slow files are there."""
    path = model_dir / "tokenizer.json"
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        from transformers import WhisperTokenizerFast

        fast: Tokenizer = WhisperTokenizerFast.from_pretrained(model_dir, local_files_only=True).backend_tokenizer
        return fast
    except Exception as error:  # tokenizers raises bare exceptions
        raise EngineError(f"cannot load the tokenizer in {model_dir}: {error}; run advanced_cache.py") from error


def special_names(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the tokens that are written `<|...|>`."""
    added = tokenizer.get_added_tokens_decoder()
    return {token.content: id_ for id_, token in added.items() if token.content.startswith("<|")}


class WhisperTokenizer:
    """A model's tokenizer with Whisper's conventions."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._texts: dict[int, str] = {}  # of single tokens

    def encode(self, text: str) -> list[int]:
        """Tokens of text that stands after other text."""
        ids: list[int] = self._tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
        return [id_ for id_ in ids if id_ < self._special.end]  # no special token can be smuggled in

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; timestamps and other special tokens are left out."""
        words = [token for token in tokens if token < self._special.end]
        text: str = self._tokenizer.decode(words, skip_special_tokens=False)
        return text

    def prompt(self, prompt: str, hotwords: str) -> list[int]:
        """What is put in front of the text, or nothing: hotwords, then the end of the prompt, ≤ 223 tokens."""
        if self._special.previous is None or not (prompt.strip() or hotwords.strip()):
            return []
        wanted = self.encode(hotwords)[:HOTWORD_TOKENS] if hotwords.strip() else []
        before = self.encode(prompt) if prompt.strip() else []
        room = PROMPT_TOKENS - len(wanted)
        return [self._special.previous, *wanted, *before[-room:]]

    def words(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Splits text tokens into words, each with its tokens, as OpenAI's Whisper does (tokenizer.py)."""
        characters = self._characters(tokens)
        if language in UNSPACED:
            return characters
        words: list[tuple[str, list[int]]] = []
        for text, ids in characters:
            punctuation = bool(text.strip()) and not any(c.isalnum() for c in text.strip())
            if not words or text.startswith(" ") or (punctuation and len(text.strip()) == 1):
                words.append((text, ids))
            else:
                words[-1] = (words[-1][0] + text, words[-1][1] + ids)
        return words

    def _text(self, token: int) -> str:
        """The text of one token. Most of the words of a text are looked up again and again."""
        if token not in self._texts:
            self._texts[token] = self.decode([token])
        return self._texts[token]

    def _characters(self, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The shortest runs of tokens that are whole characters."""
        runs: list[tuple[str, list[int]]] = []
        pending: list[int] = []
        for position, token in enumerate(tokens):
            pending.append(token)
            text = self._text(token) if len(pending) == 1 else self.decode(pending)
            if REPLACEMENT not in text or position == len(tokens) - 1:
                runs.append((text, pending))
                pending = []
        return runs
