"""`python -m neo_async` is `neo-async`."""

from neo_async.cli import main

if __name__ == "__main__":
    main()
