# Two images from one build:
#   docker build -t source-posthog .                                (last stage: source)
#   docker build -t destination-patterns --target destination .
#
# Base images of your own choice: --build-arg RUST_IMAGE=… --build-arg RUNTIME_IMAGE=…
# The build image needs cargo, a C compiler and CA certificates; the runtime image needs sh, mv,
# sleep, kill (a shell builtin will do), groupadd and useradd.
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG RUNTIME_IMAGE=debian:bookworm-slim

# Dependencies first, against empty programs: this stage stays until a manifest or Cargo.lock changes.
# rust-toolchain.toml stays outside, because it would make rustup fetch clippy and rustfmt.
FROM ${RUST_IMAGE} AS dependencies
ARG PROFILE=release
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY integration_tests/sandbox/Cargo.toml integration_tests/sandbox/
COPY quickstart/Cargo.toml quickstart/
COPY benches/Cargo.toml benches/
COPY packaging/Cargo.toml packaging/
RUN mkdir -p src/bin benches/src integration_tests/sandbox/src packaging/src quickstart/src \
 && touch src/lib.rs benches/hot_path.rs benches/src/lib.rs integration_tests/main.rs integration_tests/allocations.rs \
      integration_tests/sandbox/src/lib.rs \
 && echo 'fn main() {}' | tee src/main.rs src/bin/destination-patterns.rs benches/src/main.rs packaging/src/main.rs \
      quickstart/src/main.rs > integration_tests/sandbox/src/main.rs \
 && cargo build --profile "${PROFILE}" --locked --bins

# The copies keep their old times of change; without `touch`, cargo would take the empty programs for newer.
FROM dependencies AS build
ARG PROFILE=release
COPY src src
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --profile "${PROFILE}" --locked --bins \
 && mkdir programs \
 && cp "target/${PROFILE}/source-posthog" "target/${PROFILE}/destination-patterns" programs/

# What both images have in common. Nothing in it is written to at run time but the working directory,
# and that only when the platform does not choose another one.
FROM ${RUNTIME_IMAGE} AS runtime
RUN groupadd --gid 1000 airbyte \
 && useradd --uid 1000 --gid 1000 --no-log-init --create-home --shell /bin/sh airbyte \
 && mkdir -p /airbyte/integration_code /config /secrets \
 && chown airbyte:airbyte /airbyte/integration_code /config /secrets
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /airbyte/LICENSE
WORKDIR /airbyte/integration_code
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000

FROM runtime AS destination
ARG VERSION=0.1.0
COPY --from=build /build/programs/destination-patterns /airbyte/destination-patterns
# Airbyte runs the command in this variable through a shell; ENTRYPOINT is for all other uses.
ENV AIRBYTE_ENTRYPOINT="/airbyte/destination-patterns"
ENTRYPOINT ["/airbyte/destination-patterns"]
LABEL io.airbyte.name="destination-patterns" \
      io.airbyte.version="${VERSION}" \
      org.opencontainers.image.title="destination-patterns" \
      org.opencontainers.image.description="Airbyte destination that delivers records to a Patterns webhook" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"

FROM runtime AS source
ARG VERSION=0.1.0
COPY --from=build /build/programs/source-posthog /airbyte/source-posthog
ENV AIRBYTE_ENTRYPOINT="/airbyte/source-posthog"
ENTRYPOINT ["/airbyte/source-posthog"]
LABEL io.airbyte.name="source-posthog" \
      io.airbyte.version="${VERSION}" \
      org.opencontainers.image.title="source-posthog" \
      org.opencontainers.image.description="Airbyte source for PostHog that never drops an event silently" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
