# The whole of merido is one binary: built in the first stage, alone in the second.
#
#   docker build -t merido .
#   docker run --rm -i merido hash-password            # type a password; it prints the hash
#   docker run -p 8788:8788 -v merido:/data --stop-timeout 630 \
#       -e MERIDO_DASHBOARD_PASSWORD_HASH='…' merido
#
# Without a password hash it refuses to start, since it listens on every address here. `--stop-timeout` is
# MERIDO_DRAIN_SECONDS and the lame duck: Docker's 10 s would cut running answers.
# scripts/docker-stages.sh runs the build stage without an engine and checks the rest.

FROM rust:1-slim-bookworm AS build
# `quick` builds in a fraction of the time; `release` is what to deploy.
ARG PROFILE=release
WORKDIR /build
COPY . .
RUN cargo install --locked --no-track --path . --bin merido --profile "$PROFILE" --root out
# Made here because the last stage runs nothing: it needs no shell, no package manager and no network.
RUN mkdir -p out/data \
    && out/bin/merido --version

FROM debian:bookworm-slim
# Providers are called over TLS, and the slim image trusts nobody yet.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/out/bin/merido /usr/local/bin/merido
# A fresh volume takes over owner and mode from here.
COPY --from=build --chown=10001:10001 --chmod=700 /build/out/data /data
ENV MERIDO_HOST=0.0.0.0 \
    MERIDO_DATA_DIR=/data \
    HOME=/data
# A number, so that clusters can see that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8788
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["merido", "healthcheck"]
ENTRYPOINT ["merido"]
CMD ["start"]
