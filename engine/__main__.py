"""`python -m engine` is the command `promptferry`."""

from engine.cli import main

if __name__ == "__main__":
    main()
