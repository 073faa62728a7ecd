"""What the commands of `filesfs` do; cli.py reads their arguments."""
