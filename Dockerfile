# The HTTP server in a container; see docs/how-to/containers.md. No container engine has built this yet.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
# Wheels of PyTorch: cpu, or those for an NVIDIA GPU, such as cu128.
ARG TORCH=cpu
# Extras of the package, such as serve,heif,polygons.
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/refinenet
ENV PATH=/opt/refinenet/bin:$PATH
# Versions are the ranges of pyproject.toml. PyTorch comes first, as its usual wheels bring 4 GB of CUDA.
# hadolint ignore=DL3013
RUN pip install torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE MODEL_CARD.md ./
COPY src src
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="refinenet" \
      org.opencontainers.image.description="HTTP server for semantic segmentation and dense prediction" \
      org.opencontainers.image.source="https://github.com/OWNER/refinenet" \
      org.opencontainers.image.licenses="BSD-3-Clause"
RUN groupadd --gid 1000 refinenet && useradd --uid 1000 --gid 1000 --create-home refinenet
COPY --from=build /opt/refinenet /opt/refinenet
ENV PATH=/opt/refinenet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    REFINENET_CACHE=/home/refinenet/.cache/refinenet \
    REFINENET_SERVE_HOST=0.0.0.0
USER 1000:1000
WORKDIR /home/refinenet
# The bundled model is translated for OpenVINO now: later the file system may be read-only.
RUN ["python", "-c", "import numpy, refinenet; refinenet.RefineNet(model='camvid').segment(numpy.zeros((64, 64, 3), 'uint8'))"]
EXPOSE 8000
# By the address and not a name, and without the proxies of the environment.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/v2/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["refinenet", "serve"]
