# The gateway's image: the binary, CA certificates, and an account that is not
# root. It holds no Postgres: say where one is with POSTRIDER_DATABASE_URL, or
# let docker-compose.yml start both. Needs BuildKit (the default since Docker 23).

FROM rust:1-slim-bookworm AS build
# jemalloc is built with it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep what was downloaded and compiled from one build to the next;
# they are no part of the image, hence the copy out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin postrider \
 && install -D target/dist/postrider /out/postrider

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 postrider \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin postrider
COPY --from=build /out/postrider /usr/local/bin/postrider
USER 10001:10001
ENV POSTRIDER_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Alive, not ready: while Postgres is away the gateway answers 503 and heals by
# itself, and a restart would not help. bash can speak TCP; curl is not here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ $status == 200 ]]"]
ENTRYPOINT ["postrider"]
CMD ["serve"]
