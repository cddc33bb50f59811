"""`python -m fairhuman`."""

from fairhuman.cli import main

main()
