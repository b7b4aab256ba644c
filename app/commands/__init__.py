"""The subcommands of `persona`, by what they serve; each imports its work when called."""
