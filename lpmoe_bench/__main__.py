"""python -m lpmoe_bench is the console script."""

from lpmoe_bench.cli.app import main

if __name__ == "__main__":
    main()
