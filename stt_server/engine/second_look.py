"""A second look: texts that greedy decoding leaves in doubt are searched with beams, on the encoding that is there.

Greedy decoding takes most texts right at a fraction of the cost. Those that it doubts are few, and a beam search of
these alone has nearly the word error rate of a beam search of everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from stt_server.engine.acceptance import RedecodingBudget, is_loop, rejection_reason
from stt_server.engine.generation import Decoded, TextDecoder
from stt_server.engine.language_choice import Reading
from stt_server.engine.types import Chunk

DOUBTED_CONFIDENCE = 0.75
"""exp(mean log-probability) below which a text is searched again.

Whisper base, 85 recordings of 14 languages, errors in English (965 words) and others (559): greedy 85 and 157; 5 beams
for everything 83 and 144; for texts below 0.60: 84 and 156; 0.70: 82 and 149; 0.75: 80 and 144; 0.80: 80 and 144.
"""


def is_doubted(decoded: Decoded, chunk: Chunk) -> bool:
    """Whether a greedily decoded text is improbable or unacceptable.

    Not where the VAD was uncertain: a text made up from noise must not become more probable. Not loops: a beam search
    prefers them over short words, and `Redecoder` decodes their repetitions one by one.
    """
    if not chunk.speech_certain or is_loop(decoded.text, chunk):
        return False
    return decoded.mean_logprob < math.log(DOUBTED_CONFIDENCE) or rejection_reason(decoded, chunk) is not None


class SecondLook:
    """Searches doubted texts again."""

    def __init__(self, decoder: TextDecoder, beams: int) -> None:
        """
        Args:
            beams: hypotheses kept; no more than those of the first decoding: there is no second look.
        """
        self._decoder = decoder
        self._beams = beams

    def improved(self, readings: Sequence[Reading], budgets: Sequence[RedecodingBudget]) -> list[Reading]:
        """The texts, with better ones for those that were doubted. All are searched in one batch.

        Args:
            budgets: of each reading; the search is charged to them.
        """
        found = list(readings)
        doubted = [i for i, own in enumerate(readings) if not own.job.draft and is_doubted(own.decoded, own.job.chunk)]
        if not doubted or self._beams <= self._decoder.beam_size:
            return found
        searched = self._decoder.decode([readings[i].input for i in doubted], beams=self._beams)
        for i, other in zip(doubted, searched):
            budgets[i].charge(other)
            # Not the more probable one: the mean log-probability predicts fewer errors less well than the search does.
            if rejection_reason(other, readings[i].job.chunk) is None:
                found[i] = replace(readings[i], decoded=other)
        return found
