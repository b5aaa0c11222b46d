"""The FFmpeg demuxers and decoders that files may use: lists of what is allowed, not of what isn't."""

from __future__ import annotations

DEMUXERS = (
    *("wav", "flac", "mp3", "ogg", "mov", "matroska", "aac"),
    *("aiff", "amr", "asf", "au", "avi", "caf", "flv", "gsm", "mpegts", "w64", "ac3", "eac3"),
)
"""Containers of recordings. `signatures` chooses one of them; none of them opens other files, given `OPTIONS`."""

DECODERS = frozenset(
    {
        *("aac", "aac_latm", "ac3", "alac", "eac3", "flac", "mp2", "mp2float", "mp3", "mp3float"),
        *("opus", "libopus", "speex", "vorbis", "libvorbis", "nellymoser"),
        *("wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless"),
        *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "gsm", "gsm_ms", "g722", "g723_1"),
        *("g726", "g726le", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "adpcm_yamaha"),
        *("pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_bluray"),
        *(f"pcm_{sample}{order}" for sample in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
    }
)
"""Decoders for recordings of speech. No video decoder runs, not even to probe."""

OPTIONS = {
    "format_whitelist": ",".join(DEMUXERS),
    "codec_whitelist": ",".join(sorted(DECODERS)),
    # There is no protocol of this name, so that references to other files or addresses can't be opened.
    "protocol_whitelist": "none",
}
"""Options of every file that FFmpeg opens."""

SUPPORTED = (
    "supported: WAV, FLAC, MP3, Ogg, MP4/M4A/MOV/3GP, WebM/MKV, AAC, AMR, AIFF, AU, CAF, W64, WMA, GSM, AC-3, MPEG-TS, "
    "FLV and AVI"
)
"""The end of messages about a file that isn't."""
