# npk on a CPU: docker build -t npk . && docker run --rm -v "$PWD:/work" npk demo --out demo
# PyTorch's ordinary wheels for Linux carry CUDA; its index of CPU wheels makes a much smaller image:
# docker build --build-arg PIP_EXTRA_INDEX_URL=... -t npk .
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[demo,onnx]' -c constraints.txt && rm -rf /src/*

RUN useradd --create-home npk
USER npk
ENV NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /work
ENTRYPOINT ["npk"]
CMD ["--help"]
