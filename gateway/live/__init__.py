"""Live captions: the WebSocket endpoint and the page."""
