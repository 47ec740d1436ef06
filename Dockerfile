# kv_server and kv_client in a small image that runs as an ordinary user.
#
#   docker build -t bowline .
#   docker run -p 127.0.0.1:6379:6379 -v bowline-data:/data bowline
#
# In a container clients come from other addresses than the loopback, so give it a password (--requirepass), or reach it
# from networks you trust only and say --protected-mode no.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin kv_server --bin kv_client

FROM debian:bookworm-slim
RUN useradd --system --uid 6379 --user-group --home-dir /data --shell /usr/sbin/nologin bowline \
    && install -d -o bowline -g bowline -m 750 /data
COPY --from=build /source/target/release/kv_server /source/target/release/kv_client /usr/local/bin/
USER bowline
WORKDIR /data
VOLUME /data
EXPOSE 6379
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["kv_client", "ping"]
ENTRYPOINT ["kv_server", "--dir", "/data", "--bind", "*", "-::*"]
