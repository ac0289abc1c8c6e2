"""How likely a word is right, from what the model thought of it and of the text around it.

The mean probability of a word's tokens alone is too sure of itself where a whole window is guessed. A logistic function
of its logit and of the mean log-probability of the window's tokens tells wrong words better, and is calibrated. Fitted
by tests/bench/confidence.py with whisper-base on 20 English clips, clean and with white noise or the babble of six
voices in six ways (2000 words, 27 % wrong); docs/performance.md has the figures.
"""

import math

BIAS, WORD_WEIGHT, WINDOW_WEIGHT = 2.36, 0.676, 3.54
SUREST = 0.999  # of a word: beyond it, and below one less it, there is nothing more to tell
WORST_WINDOW = -3.0  # mean log-probability


def probability_right(word: float, window: float) -> float:
    """The probability that a word is right. `word` is the mean probability of its tokens, `window` the mean natural
    log-probability of all tokens that were decoded with it (`avg_logprob`)."""
    word = min(max(word, 1 - SUREST), SUREST)
    window = min(max(window, WORST_WINDOW), 0.0)
    return 1 / (1 + math.exp(-BIAS - WORD_WEIGHT * math.log(word / (1 - word)) - WINDOW_WEIGHT * window))
