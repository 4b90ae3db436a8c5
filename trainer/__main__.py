"""`python -m trainer`; what it does is in `trainer.main`, which needs the libraries of the extra trainer."""

import faulthandler
import sys

from recsys.runtime.extras import extra_named

if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    with extra_named("python -m trainer", "trainer"):
        from trainer.main import main

        sys.exit(main())
