# jaxmoe on NVIDIA GPUs. The host has the driver: 580 or newer, as the gpu extra is of CUDA 13.
#
#   docker build -f launch/gpu.Dockerfile -t jaxmoe-gpu .
#   docker run --gpus all --shm-size 16g -v DIR:/shared jaxmoe-gpu train CONFIG.py --field value …
#
# Loaders' workers pass batches on in shared memory, of which a container has 64 MiB by itself.
FROM python:3.11-slim
WORKDIR /jaxmoe
COPY pyproject.toml README.md LICENSE ./
COPY jaxmoe jaxmoe
COPY configs configs
RUN pip install --no-cache-dir '.[gpu]'
# Prepared data and compiled programs outlive the container where /shared is mounted.
ENV JAXMOE_CACHE=/shared/cache
ENTRYPOINT ["jaxmoe"]
