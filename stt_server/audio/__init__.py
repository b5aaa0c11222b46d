"""Audio decoding and splitting: bytes -> mono float32 at 16 kHz -> chunks of at most 30 s.

Everything exported here is synchronous, stateless, opens no files or sockets, and is thread-safe: callers run it in an
executor. `sandbox` decodes untrusted files in confined child processes.
"""

from stt_server.audio.chunks import MAX_CHUNK_SECONDS, Chunk, split
from stt_server.audio.decode import decode, decode_plain
from stt_server.audio.formats import SAMPLE_RATE, AudioFormat

__all__ = ["MAX_CHUNK_SECONDS", "SAMPLE_RATE", "AudioFormat", "Chunk", "decode", "decode_plain", "split"]
