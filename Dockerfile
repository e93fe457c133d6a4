# The sidecar as an image: one static binary, CA certificates, and the three
# directories it writes to, all owned by an unprivileged user.
#
#   docker build -t pamsidecar .
#
# Give run its configuration at /etc/pamsidecar/pamsidecar.yaml. Groups in it are
# numbers: the image has no /etc/group.

ARG BUILDER=golang:1.26

FROM ${BUILDER} AS build
ARG GOPROXY
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# timetzdata: zones for regrant_at, of which the final image has none.
ARG VERSION
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags timetzdata -ldflags="-s -w -X main.version=${VERSION}" -o /out/pamsidecar ./cmd/pamsidecar
# A named volume takes owner and mode from the directory it first covers. The way
# to the token socket is open to every user, who still needs the socket's group.
RUN install -d /rootfs/etc/ssl/certs /rootfs/run /rootfs/var/lib \
 && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
 && install -d -m 0711 /own/run/pamsidecar \
 && install -d -m 0700 /own/run/pamsidecar-admin /own/var/lib/pamsidecar

# The example app of docker-compose.yml; not part of the sidecar's image.
FROM build AS build-app
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/app ./examples/compose-app

FROM scratch AS app
COPY --from=build /rootfs/etc/ /etc/
COPY --from=build-app /out/app /app
USER 10001:10001
ENTRYPOINT ["/app"]

# The program with what any of its commands needs.
FROM scratch AS program
COPY --from=build /rootfs/ /
COPY --from=build --chown=65532:65532 /own/run/ /run/
COPY --from=build --chown=65532:65532 /own/var/lib/ /var/lib/
COPY --from=build /out/pamsidecar /pamsidecar
USER 65532:65532
ENTRYPOINT ["/pamsidecar"]

FROM program AS sidecar
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
  CMD ["/pamsidecar", "wait", "--timeout", "0"]
CMD ["run"]
