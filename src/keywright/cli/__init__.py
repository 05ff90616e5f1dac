"""The command: one file a noun, imported only when it is used."""
