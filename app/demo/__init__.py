"""The demo in the browser: sliders beside a conversation, and a user learned from choices."""
