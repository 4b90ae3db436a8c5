# One image for every service; docker-compose.yml says which one runs.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# Two locks: what the services import, and what builds our own wheel, which stays behind in this stage.
COPY requirements/services.lock requirements/build.lock ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes --no-deps --only-binary :all: \
        --requirement services.lock \
    && pip install --require-hashes --no-deps --only-binary :all: --requirement build.lock

COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv/bin/python install --no-deps --no-index dist/*.whl \
    && pip --python /opt/venv/bin/python check

FROM python:3.11.14-slim-bookworm
# implicit's wheel links to the system's OpenMP, which the slim image leaves out.
# New volumes mounted at the data folder and at those of the passwords take over these folders' owner.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 recsys \
    && useradd --uid 10001 --gid recsys --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin recsys \
    && install --directory --owner recsys --group recsys /var/lib/recsys \
    && install --directory --owner recsys --group recsys /run/recsys /run/login/api /run/login/consumer /run/login/redis
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    RECSYS_DATA_DIR=/var/lib/recsys
USER 10001:10001
CMD ["recsys", "--help"]
