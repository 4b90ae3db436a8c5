"""`python -m trainer`; what it does is in `trainer.main`, which needs the libraries of the extra trainer."""

import faulthandler

from recsys.runtime.extras import extra_named

if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    with extra_named("python -m trainer", "trainer"):
        from recsys.runtime.service import end
        from trainer.main import main

        end(main())
