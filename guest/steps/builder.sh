# Part "builder": builder.ext4, the root disk of the MicroVMs that run Dockerfiles. It holds buildah and, in buildah's own storage,
# the Debian image.

readonly builder_size=24G
readonly builder_uuid=656d6265-7262-6f78-6275-696c64657200
readonly builder_hash_seed=656d6265-7262-6f78-6861-736873656564

builder_key() {
    {
        cat "$packages_builder"
        recipe_bytes steps/builder.sh steps/debian-image.sh recipe/builder recipe/debian recipe/builder.packages recipe/image.names recipe/slim.dpkg.cfg
        echo "$mirror $security_mirror $SOURCE_DATE_EPOCH"
    } | key_of_input
}

make_builder() {
    local dir=$1 root=$scratch/builder-root
    make_debian_image "$scratch/debian-oci"
    make_builder_root "$root"
    import_debian_image "$root" "$scratch/debian-oci"
    normalise_storage "$root/var/lib/containers/storage"
    make_builder_disk "$root" "$dir/builder.ext4"
    cat "$root/etc/debian_version" >"$dir/debian-version"
    in_builder "$root" buildah --version | awk '{ print $3 }' >"$dir/buildah-version"
    say "  checksum of the builder disk"
    describe "$dir/builder.ext4" >"$dir/describe"
}

make_builder_root() {
    local root=$1
    say "  builder root: installing packages"
    debootstrap_quietly --variant=essential --format=directory --include="$(entries "$recipe/builder.packages" | paste -sd,)" \
        --customize-hook="$(forget_host)" "$suite" "$root"
    cp -rT "$recipe/builder" "$root"
    # Nothing is installed here later, and these differ between two runs.
    rm -rf "$root"/var/log/* "$root"/var/cache/{apt,debconf,ldconfig} "$root"/var/lib/apt "$root"/var/lib/dpkg/*-old "$root"/etc/{passwd,group,shadow,gshadow}-
    mkdir -p "$root/newroot"
}

# in_builder <root> <command...>: runs it in the builder root with the kernel's file systems mounted, all of which vanish with it.
in_builder() {
    local root=$1
    shift
    unshare --mount --pid --fork --kill-child --propagation private bash -euc '
        root=$1 && shift
        mount --bind "$root" "$root" # buildah unpacks layers in a chroot of its own, which works below a mount point alone
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/run"
        mount -t tmpfs tmpfs "$root/tmp"
        exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
            E2FSPROGS_FAKE_TIME="$SOURCE_DATE_EPOCH" "$@"' bash "$root" "$@"
}

import_debian_image() {
    local root=$1 names
    say "  builder root: importing the Debian image into buildah's storage"
    mkdir "$root/import" && mv "$2" "$root/import/debian"
    mapfile -t names < <(entries "$recipe/image.names")
    in_builder "$root" bash -euc 'id=$(buildah pull -q oci:/import/debian) && buildah tag "$id" "$@"' bash "${names[@]}" >"$scratch/import.log" 2>&1 ||
        fail "buildah could not import the Debian image: $(tail -n 3 "$scratch/import.log")" \
            "If it speaks of overlay: the cache must lie on ext4, xfs or btrfs, not on another overlay. Try another --cache."
    rm -r "$root/import"
}

# What buildah names or stamps at random gets a fixed value, and what it makes again by itself goes.
normalise_storage() {
    local storage=$1 layer link fixed
    for layer in "$storage"/overlay/*/diff; do
        layer=$(dirname "$layer")
        link=$(<"$layer/link")
        fixed=$(basename "$layer" | tr a-z A-Z | cut -c1-26)
        mv -T "$storage/overlay/l/$link" "$storage/overlay/l/$fixed"
        printf %s "$fixed" >"$layer/link"
    done
    sed -i -E "s/\"created\":\"[^\"]*\"/\"created\":\"$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)\"/g" "$storage"/overlay-{layers,images}/*.json
    find "$storage" -name '*.lock' -delete
    rm -rf "$storage"/{tmp,cache,overlay/backingFsBlockDev,overlay/tempdirs} "$(dirname "$storage")/cache" "$(dirname "$storage")/blob-info-cache-v1".*
}

# The builder's own mke2fs reads a sorted tar: the same bytes whatever e2fsprogs the host has. No journal (the disk is thrown away
# after one build) and all metadata at the front, so that everything behind data_bytes is one hole.
make_builder_disk() {
    local root=$1 image=$2
    say "  builder disk: writing the file system"
    mkdir -p "$root/disk-out"
    truncate -s "$builder_size" "$root/disk-out/image"
    tar -C "$root" --create --sort=name --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner --xattrs --xattrs-include='*' \
        --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime --exclude=./disk-out . |
        in_builder "$root" mke2fs -q -F -t ext4 -d - -L builder -U "$builder_uuid" -m 0 \
            -O '^has_journal,^resize_inode,sparse_super2' \
            -E "hash_seed=$builder_hash_seed,packed_meta_blocks=1,num_backup_sb=0,assume_storage_prezeroed=1,root_owner=0:0" \
            /disk-out/image >"$scratch/mke2fs.log" 2>&1 ||
        fail "mke2fs failed: $(tail -n 3 "$scratch/mke2fs.log")" "If it speaks of space: $cache needs 2 GiB."
    mv "$root/disk-out/image" "$image"
}
