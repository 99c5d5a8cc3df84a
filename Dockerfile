# The programs of ducc, an image each; docs/install.md says how they are run.
#
#   docker build --target service .       keeps repositories equal to wishlists; not root
#   docker build --target server .        serves repositories by HTTP; not root
#   docker build --target client .        mounts repositories
#   docker build --target snapshotter .   containerd's snapshotter
#   docker build --target graphdriver .   the graph driver of Docker 20.10 to 27; also what its managed plugin is made of
#
# Built by BuildKit (DOCKER_BUILDKIT=1 before Docker 23) or by podman build. What apt and pip have to know of a site is
# given as secrets, of which nothing stays in an image, and of which each may be left out:
#   --secret id=sources.list,src=FILE   in place of /etc/apt/sources.list
#   --secret id=apt.conf,src=FILE       as /etc/apt/apt.conf
#   --secret id=pip.conf,src=FILE       as /etc/pip.conf
#   --secret id=ca,src=FILE             a file that the others may name, as /run/secrets/ca

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN --mount=type=secret,id=sources.list,target=/etc/apt/sources.list \
    --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf \
    --mount=type=secret,id=ca \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt \
    mkdir -p /var/cache/apt/archives/partial \
    && apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3
ENV PATH=/opt/ducc/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

FROM python AS build
RUN --mount=type=secret,id=sources.list,target=/etc/apt/sources.list \
    --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf \
    --mount=type=secret,id=ca \
    apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3-venv
COPY pyproject.toml constraints.txt /src/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca \
    python3 -m venv /opt/ducc /opt/build \
    && python3 -c 'import tomllib; print(*tomllib.load(open("/src/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > /src/requirements.txt \
    && /opt/ducc/bin/pip install --quiet --no-cache-dir --constraint /src/constraints.txt --requirement /src/requirements.txt \
    && /opt/build/bin/pip install --quiet --no-cache-dir --constraint /src/constraints.txt hatchling
COPY . /src
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /src/dist /src \
    && /opt/ducc/bin/pip install --quiet --no-deps --no-index /src/dist/*.whl \
    && /opt/ducc/bin/pip uninstall --quiet --yes pip setuptools

FROM python AS runtime
COPY --from=build /opt/ducc /opt/ducc
RUN ln -s /opt/ducc/bin/ducc* /opt/ducc/bin/mount.ducc /usr/local/bin/

FROM runtime AS service
RUN --mount=type=secret,id=sources.list,target=/etc/apt/sources.list \
    --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf \
    --mount=type=secret,id=ca \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt \
    mkdir -p /var/cache/apt/archives/partial \
    && apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ca-certificates git \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/ducc ducc \
    && install -d -o ducc -g ducc /srv/cvmfs /var/lib/ducc /var/cache/ducc /etc/ducc /etc/ducc/keys
USER ducc
WORKDIR /var/lib/ducc
ENV DUCC_STORAGE=file:///srv/cvmfs DUCC_KEYS=/etc/ducc/keys DUCC_STATE=/var/lib/ducc DUCC_CACHE=/var/cache/ducc
HEALTHCHECK --interval=15s --start-period=2m CMD ["python3", "-m", "ducc.health", "daemon"]
ENTRYPOINT ["python3", "-m", "ducc.health", "watch", "ducc"]
CMD ["--help"]

FROM service AS server
EXPOSE 8000
HEALTHCHECK --interval=15s CMD ["python3", "-m", "ducc.health", "http", "http://127.0.0.1:8000/"]
ENTRYPOINT ["ducc"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS client
RUN --mount=type=secret,id=sources.list,target=/etc/apt/sources.list \
    --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf \
    --mount=type=secret,id=ca \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt \
    mkdir -p /var/cache/apt/archives/partial /cvmfs \
    && apt-get -q update \
    && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends fuse3
HEALTHCHECK --interval=15s CMD ["ducc", "client", "probe"]
ENTRYPOINT ["ducc"]
CMD ["mount", "--help"]

FROM runtime AS snapshotter
HEALTHCHECK --interval=15s CMD ["python3", "-m", "ducc.health", "grpc", "/run/ducc-snapshotter/snapshotter.sock"]
ENTRYPOINT ["ducc-snapshotter"]

FROM runtime AS graphdriver
HEALTHCHECK --interval=15s CMD ["python3", "-m", "ducc.health", "plugin", "/run/docker/plugins/ducc-graphdriver.sock"]
ENTRYPOINT ["ducc-graphdriver"]
