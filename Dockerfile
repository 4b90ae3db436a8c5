# One image for every service; docker-compose.yml says which one runs.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# The lock also holds what development and the demo need. Taken as constraints it gives versions and hashes to those
# packages only that the services need; the base image's own pip is too old to take hashes from constraints.
RUN echo "pip==26.3 --hash=sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13" > pip.txt \
    && pip install --require-hashes --requirement pip.txt
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > services.txt \
    && echo "hatchling" > backend.txt \
    && python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: \
        --constraint requirements.lock --requirement services.txt \
    && pip install --require-hashes --only-binary :all: --constraint requirements.lock --requirement backend.txt

COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/venv/bin/python install --no-deps --no-index dist/*.whl \
    && pip --python /opt/venv/bin/python check

FROM python:3.11.14-slim-bookworm
# implicit's wheel links to the system's OpenMP, which the slim image leaves out.
# A new volume mounted at the data folder takes over the folder's owner.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 recsys \
    && useradd --uid 10001 --gid recsys --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin recsys \
    && install --directory --owner recsys --group recsys /var/lib/recsys
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    RECSYS_DATA_DIR=/var/lib/recsys
USER 10001:10001
CMD ["recsys", "--help"]
