"""The OpenAI-compatible server: requests in, replies about sounds out.

One thread owns the model (worker.py over rows.py); everything else only reads requests (chat_request,
transcription, media) and writes replies (replies, http, app). Needs the extra `serve`.
"""
