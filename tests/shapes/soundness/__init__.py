"""Random graphs on which everything that inference says is held against what runs."""
