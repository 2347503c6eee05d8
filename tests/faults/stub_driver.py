"""The command line with a stub for a method; worker processes import this file as they start."""

from stub_method import install

install()

if __name__ == "__main__":
    from cohort.cli import main

    main()
