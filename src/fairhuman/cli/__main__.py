"""`python -m fairhuman.cli`."""

from fairhuman.cli import main

main()
