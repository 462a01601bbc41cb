"""`python -m vlmpass` is `vlmpass`."""

from vlmpass.cli import main

main()
