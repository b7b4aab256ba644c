"""Training algorithms, one file each, readable from top to bottom.

Nothing is imported here: a recipe brings in the libraries that it needs, and only it.
"""
