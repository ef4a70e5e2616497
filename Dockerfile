# An image with kvd and kvctl as static binaries. busybox adds the wget of the health check, and a shell.
# Where no registry can be reached, tests/kvd-image/build makes the same image from Debian's packages.
FROM rust:1.95-slim AS build
WORKDIR /src
COPY . .
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target=$(rustc -vV | sed -n 's/^host: //p') && \
    cargo build --release --locked --target "$target" -p kvd -p kvctl && \
    install -D -t /out/bin "target/$target/release/kvd" "target/$target/release/kvctl" && \
    install -d /out/data

FROM busybox:1.37-musl
COPY --from=build /out/bin/ /bin/
COPY --from=build --chown=10001:10001 /out/data /data
USER 10001:10001
ENV KVD_DATA_DIR=/data
VOLUME /data
EXPOSE 5000
ENTRYPOINT ["kvd"]
