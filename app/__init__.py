"""What people touch: the command line, the demo, and the run that ties the other packages together.

Nothing heavy is imported here, so that `persona --help` answers at once.
"""
