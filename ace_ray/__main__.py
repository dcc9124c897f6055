"""`python -m ace_ray` is `ace`."""

import sys

from ace_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
