"""The names of an interaction log's columns, said once."""

USER = "user_id"
ITEM = "item_id"
LEVEL = "level"
TIMESTAMP = "timestamp"
# Marks the rows that a source gives as its test part.
IS_TEST = "is_test"
