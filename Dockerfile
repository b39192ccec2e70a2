# The service and every command but training, plots and demos: docker build -t tapetum .
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
# Of what builds the wheel pip asks these variables alone: before 25.3 the first.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
# An index with PyTorch's CPU builds leaves 4 GB of CUDA out; pip reads it from the environment of the step below.
ARG PIP_EXTRA_INDEX_URL
COPY constraints.txt /wheels/
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[export,footage,gallery,milvus,serve]" \
 && rm -r /wheels \
 && useradd --create-home --uid 10001 tapetum \
 && install -d -o tapetum /data
# The root may be read-only, so what is fetched (detectors, weights) lies in the volume.
ENV XDG_CACHE_HOME=/data/cache
USER tapetum
WORKDIR /data
VOLUME /data
EXPOSE 8000
# A container's first process ignores SIGTERM unless it asks for it; every command ends in order at Ctrl-C.
STOPSIGNAL SIGINT
ENTRYPOINT ["tapetum"]
CMD ["--help"]
