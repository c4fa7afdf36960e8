"""python -m mribatch"""

from mribatch.cli.main import main

if __name__ == "__main__":
    main()
