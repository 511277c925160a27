# The Debian 13 image every FROM can start with offline: made from Debian's packages, slimmed the way debian:*-slim is, and packed
# as an OCI layout with one uncompressed layer.

make_debian_image() {
    local layout=$1 layer=$scratch/layer.tar
    say "  Debian image: installing packages"
    debian_overlay "$scratch/debian-overlay"
    debootstrap_quietly --variant=minbase --format=tar --skip=output/dev \
        --customize-hook="sync-in $scratch/debian-overlay /" \
        --customize-hook='rm -f "$1/etc/apt/sources.list" "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1"/var/cache/apt/*.bin' \
        --customize-hook="$(forget_host)" \
        "$suite" "$layer"
    say "  Debian image: packing it"
    write_oci_layout "$layer" "$layout"
}

# Files laid over the packages.
debian_overlay() {
    cp -r "$recipe/debian" "$1"
    sed -e "s|@MIRROR@|$mirror|" -e "s|@SECURITY_MIRROR@|$security_mirror|" \
        "$recipe/debian/etc/apt/sources.list.d/debian.sources.in" >"$1/etc/apt/sources.list.d/debian.sources"
    rm "$1/etc/apt/sources.list.d/debian.sources.in"
    cp "$recipe/slim.dpkg.cfg" "$1/etc/dpkg/dpkg.cfg.d/slim"
    chmod -R u=rwX,go=rX "$1"
}

# mmdebstrap lends the host's name and resolver to the packages' scripts; neither belongs into an image.
forget_host() { echo 'rm -f "$1/etc/resolv.conf" "$1/etc/hostname" && : >"$1/etc/resolv.conf" && chmod 644 "$1/etc/resolv.conf"'; }

debootstrap_quietly() {
    APT_CONFIG='' mmdebstrap --mode=root --architectures=amd64 --dpkgopt="$recipe/slim.dpkg.cfg" --aptopt='Acquire::Retries "3"' \
        "$@" < <(sources "$suite") >"$scratch/mmdebstrap.log" 2>&1 ||
        fail "mmdebstrap failed: $(grep -E '^(E|W|dpkg)' "$scratch/mmdebstrap.log" | tail -n 5)" "If it was the network, run it again: nothing half-made is kept."
}

write_oci_layout() {
    local layer=$1 layout=$2 blobs=$2/blobs/sha256 digest created
    created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    mkdir -p "$blobs"
    digest=$(openssl dgst -sha256 -r "$layer" | cut -d' ' -f1)
    mv "$layer" "$blobs/$digest"
    printf '{"created":"%s","architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["bash"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s","created_by":"emberbox guest/build"}]}' \
        "$created" "$digest" "$created" >"$layout/config"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
        "$(oci_blob "$blobs" "$layout/config" config.v1+json)" \
        "$(oci_descriptor "$blobs/$digest" layer.v1.tar)" >"$layout/manifest"
    printf '{"schemaVersion":2,"manifests":[%s]}' "$(oci_blob "$blobs" "$layout/manifest" manifest.v1+json)" >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
}

# Moves a file among the blobs and prints its descriptor.
oci_blob() {
    local digest
    digest=$(sha256sum <"$2" | cut -d' ' -f1)
    mv "$2" "$1/$digest"
    oci_descriptor "$1/$digest" "$3"
}

oci_descriptor() {
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$2" "$(basename "$1")" "$(stat -c %s "$1")"
}
