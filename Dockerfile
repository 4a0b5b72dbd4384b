# syntax=docker/dockerfile:1
# Everfold's image: built from source, run without privileges. `docker build -t everfold .`

FROM rust:1.95-slim-bookworm AS build
# What scripts/setup installs, too.
RUN apt-get update && apt-get install -y --no-install-recommends \
        clang cmake make g++ pkg-config libssl-dev zlib1g-dev libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# In the one profile that the tests and the figures are of.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --bin everfold && cp target/debug/everfold /everfold

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/everfold everfold \
    && install --directory --mode 700 --owner everfold --group everfold /var/lib/everfold
COPY --from=build /everfold /usr/local/bin/everfold
USER everfold
ENV EVERFOLD_DATA=/var/lib/everfold \
    EVERFOLD_LISTEN=0.0.0.0:8008
VOLUME /var/lib/everfold
EXPOSE 8008
# Folding a long log takes its time: not ready is not dead, and nothing is killed for it.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --start-interval=1s CMD ["everfold", "health"]
ENTRYPOINT ["everfold"]
CMD ["serve"]
