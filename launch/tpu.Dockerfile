# jaxmoe on TPUs, for launch/gke_jobset.yaml.
#
#   docker build -f launch/tpu.Dockerfile -t IMAGE . && docker push IMAGE
FROM python:3.11-slim
WORKDIR /jaxmoe
COPY pyproject.toml README.md LICENSE ./
COPY jaxmoe jaxmoe
COPY configs configs
RUN pip install --no-cache-dir '.[tpu]'
# Prepared data and compiled programs outlive the container where /shared is mounted.
ENV JAXMOE_CACHE=/shared/cache
ENTRYPOINT ["jaxmoe"]
