"""`python -m consumer`; what it does is in `consumer.main`, which needs the libraries of the extra consumer."""

import faulthandler

from recsys.runtime.extras import extra_named

if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    with extra_named("python -m consumer", "consumer"):
        from consumer.main import main
        from recsys.runtime.service import end

        end(main())
