"""OpenAI's audio API: transcriptions, translations, models, and their errors."""
