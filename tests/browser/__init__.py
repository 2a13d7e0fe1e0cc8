"""The browser SDK and its page in a real Chromium, against real services behind a real Envoy."""
