# memtrace-bpf in an image of its own. It traces processes of the host and of other containers: how to run it, and with which
# privileges, is in docs/containers.md.
ARG BUILD_IMAGE=rust:1-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# The BPF object is in the source tree: stable Rust and a C compiler are enough. liblzma is linked in, so that the base needs no more
# than libc; without debug information the program is a fifth of its size.
RUN LZMA_API_STATIC=1 CARGO_PROFILE_RELEASE_DEBUG=false \
    cargo build --release --locked --package tracer-user --bin memtrace-bpf

FROM ${BASE_IMAGE}
COPY --from=build /src/target/release/memtrace-bpf /usr/local/bin/memtrace-bpf
ENTRYPOINT ["/usr/local/bin/memtrace-bpf"]
