"""The server: one port, the hot doors in front, the management API behind."""
