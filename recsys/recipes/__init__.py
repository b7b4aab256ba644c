"""Training and measuring, one file each."""
