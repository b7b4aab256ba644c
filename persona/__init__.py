"""What a user wants, inferred from little evidence, and one language-model policy that follows it.

Evidence (comparisons, sliders, text) becomes a condition; rewards and the policy take one condition a row.
This package knows nothing of items, simulators or the application. Import from its parts, such as
`persona.policy`.
"""

__version__ = "0.1.0"
