"""Audio in: bytes -> mono float32 at 16 kHz, within limits; voice activity -> chunks of at most 30 s.

Everything named here is synchronous, keeps no state between calls, opens no file and no socket, and is safe to call
from several threads: the caller runs it in an executor. `children` decodes the files of strangers, in processes of
their own.
"""

from stt_server.audio.chunks import MAX_CHUNK_SECONDS, Chunk, split
from stt_server.audio.decode import decode, decode_plain
from stt_server.audio.formats import SAMPLE_RATE, AudioFormat

__all__ = ["MAX_CHUNK_SECONDS", "SAMPLE_RATE", "AudioFormat", "Chunk", "decode", "decode_plain", "split"]
