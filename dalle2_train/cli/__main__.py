"""`python -m dalle2_train.cli` is `dalle2-train`."""

import sys

from dalle2_train.cli import main

sys.exit(main())
