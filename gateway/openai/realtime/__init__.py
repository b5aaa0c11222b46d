"""OpenAI's Realtime API: transcription sessions on a WebSocket."""
