"""`python -m api`; what it does is in `api.main`, which needs the libraries of the extra api."""

import faulthandler

from recsys.runtime.extras import extra_named

if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    with extra_named("python -m api", "api"):
        from api.main import main
        from recsys.runtime.service import end

        end(main())
