"""The names of an interaction log's columns, said once."""

USER = "user_id"
ITEM = "item_id"
LEVEL = "level"
TIMESTAMP = "timestamp"
# 0-based place in the slate, where a log of exposures tells it.
POSITION = "position"
# Marks the rows that a source gives as its test part.
IS_TEST = "is_test"
