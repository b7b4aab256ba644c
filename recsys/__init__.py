"""Which items to bring: ordinal retrieval from interaction logs, its baselines, metrics and indexes.

This package knows nothing of language models, simulators or the application. Import from its parts, such as
`recsys.models`.
"""
