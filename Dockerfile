# The service with the embedded CPU engine. The base needs Python 3.11 or newer with venv, nothing else.
# Build and try it without Docker: make test-image (docs/deployment.md#the-image)
ARG BASE=python:3.12-slim-bookworm
# requirements.lock leaves out the extras: no traces, no Postgres, no clips and spectrograms on the page.
ARG LOCK=requirements-image.lock

# The dependencies. They change less often than the code and are most of the image, so they are a layer of their own.
FROM ${BASE} AS dependencies
WORKDIR /build
ARG LOCK
COPY requirements-build.lock ${LOCK} ./
# The secret is a pip.conf for builds that need another package index; without it nothing changes.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /app \
    && /app/bin/python -m pip install --require-hashes -r ${LOCK} \
    && /app/bin/python -m pip install --require-hashes --target tools -r requirements-build.lock

# The package, as a wheel would install it, under /code.
FROM dependencies AS code
COPY pyproject.toml README.md LICENSE ./
COPY asr asr
RUN PYTHONPATH=tools /app/bin/python -m pip install --no-deps --no-build-isolation --prefix /code .

# The models. Fixed times give a rebuilt layer the same digest, so that registries keep one copy.
FROM code AS models
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    PYTHONPATH=/build /app/bin/python -m asr models install --folder /models/moonshine-tiny-en \
    && PYTHONPATH=/build /app/bin/python -m asr speakers install --folder /models/campplus \
    && find /models -exec touch --date=@0 {} +

FROM dependencies AS environment
# Nothing is installed later, so the running image needs no installer.
RUN /app/bin/python -m pip uninstall --yes pip setuptools

FROM ${BASE}
LABEL org.opencontainers.image.title="asr-service" \
      org.opencontainers.image.description="OpenAI-compatible transcription with a time for every word" \
      org.opencontainers.image.licenses="Apache-2.0"
# Kubernetes needs numbers for runAsUser and fsGroup.
RUN groupadd --system --gid 10001 asr \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin asr \
    && install --directory --owner=10001 --group=10001 --mode=0700 /work /data
COPY --from=environment /app /app
COPY --from=models /models /app/share/asr
COPY --from=code /code /app
# Only /data, /work and /tmp are written. The caches in /data make later starts faster.
ENV PATH=/app/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ASR_HOST=0.0.0.0 \
    ASR_PORT=8000 \
    ASR_WORK_DIR=/work \
    ASR_DATA_DIR=/data \
    NUMBA_CACHE_DIR=/data/numba \
    MPLCONFIGDIR=/data/matplotlib
USER 10001:10001
WORKDIR /data
EXPOSE 8000
VOLUME /work /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"ASR_PORT\"]}/health', timeout=4)"]
ENTRYPOINT ["asr"]
CMD ["serve"]
