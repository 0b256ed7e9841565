"""`python -m onebox`."""

from onebox.cli import main

if __name__ == "__main__":
    main()
