"""Everything that is asked of the databases, one file a noun, and nothing else knows any SQL.

Functions take the connection of a transaction that ``db.Database`` opened; they neither open nor commit one.
"""
