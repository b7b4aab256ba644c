"""Who reacts: an invented or a MovieLens world, simulated users with hidden truth, and the loop of turns.

Hidden truth lives in the world's oracle alone; learners see only what a real service would log. This package
may use `persona` and `recsys`, never the application. Import from its parts, such as `simulators.world`.
"""
