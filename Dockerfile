# The registry's server: no torch, no compiler, no root.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY kernels kernels
COPY sdk sdk
COPY cli cli
COPY registry_server registry_server
COPY migrations migrations
RUN python -m venv /opt/rankloom \
    && /opt/rankloom/bin/pip install --no-cache-dir --constraint constraints.txt ".[server,postgres,sign,telemetry]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin rankloom \
    && install --directory --owner=rankloom --mode=0700 /data
COPY --from=build /opt/rankloom /opt/rankloom
ENV PATH=/opt/rankloom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RANKLOOM_SERVER_DATA_DIR=/data \
    XDG_DATA_HOME=/data/xdg/share \
    XDG_CACHE_HOME=/data/xdg/cache \
    RANKLOOM_SERVER_HOST=0.0.0.0 \
    RANKLOOM_SERVER_PORT=8470
USER rankloom
VOLUME /data
EXPOSE 8470
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8470/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "rankloom_server"]
