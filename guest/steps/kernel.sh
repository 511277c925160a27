# Part "kernel": vmlinuz, the modules guests may need (decompressed, flat) and the order to load them in.

kernel_key() {
    { cat "$packages_kernel" && recipe_bytes steps/kernel.sh recipe/modules.boot recipe/modules.extra; } | key_of_input
}

make_kernel() {
    local dir=$1 tree=$scratch/kernel-tree package version
    package=$(<"$packages_kernel")
    fetch_kernel "$package" "$tree"
    version=$(ls "$tree/usr/lib/modules")
    cp "$tree/boot/vmlinuz-$version" "$dir/vmlinuz"
    echo "$version" >"$dir/version"

    say "  resolving and decompressing modules"
    mkdir "$dir/modules"
    index_modules "$tree/usr/lib/modules/$version"
    add_modules "$recipe/modules.boot" "$dir/modules" >"$dir/modules/load.list"
    add_modules "$recipe/modules.extra" "$dir/modules" >"$dir/modules/extra.list"
    describe "$dir/vmlinuz" >"$dir/describe"
}

# apt checks the package against the signed index.
fetch_kernel() {
    say "  downloading $1"
    mkdir -p "$2" "$scratch/deb"
    (use_apt_of "$kernel_suite" && cd "$scratch/deb" && apt-get -q download "$1" >"$scratch/download.log" 2>&1) ||
        fail "cannot download $1: $(tail -n 2 "$scratch/download.log")" "Check the network and run it again."
    dpkg-deb -x "$scratch"/deb/linux-image-*.deb "$2"
    # Before merged /usr kernels had their modules in /lib.
    if [[ -d $2/lib/modules ]]; then mkdir -p "$2/usr" && mv "$2/lib" "$2/usr/lib"; fi
}

# Module name -> its file, or "builtin". Names are compared as the kernel does: with underscores.
declare -A module_file module_added
index_modules() {
    local path name
    while read -r path name; do
        module_file[$name]=$path
    done < <(
        find "$1/kernel" -name '*.ko*' | module_names
        sed 's|^|builtin/|' "$1/modules.builtin" | module_names | sed 's|^[^ ]*|builtin|'
    )
}

# Paths in, "path name" out.
module_names() {
    awk '{ name = $0; sub(/.*\//, "", name); sub(/\.ko.*/, "", name); gsub(/-/, "_", name); print $0, name }'
}

# add_modules <list> <dir>: puts the listed modules there and prints their paths in the guest, in the order to load them.
add_modules() {
    local name
    while read -r name; do
        [[ ${module_file[$name]:-} ]] || fail "the kernel has no module $name" "Correct ${1#"$guest/"}: the kernel package changed."
        add_module "$name" "$2"
    done < <(entries "$1")
}

# What a module needs is written in the module itself: it comes first.
add_module() {
    local name=${1//-/_} file target needed
    file=${module_file[$name]:-}
    [[ ${module_added[$name]:-} || ! $file || $file == builtin ]] && return
    module_added[$name]=1
    target=$2/$name.ko
    decompress "$file" >"$target"
    for needed in $(module_needs "$target"); do add_module "$needed" "$2"; done
    echo "/modules/$name.ko"
}

decompress() {
    case $1 in
        *.xz) xz -dc "$1" ;;
        *.zst) zstd -qdc "$1" ;;
        *) cat "$1" ;;
    esac
}

# depends= (symbols it uses) and softdep=pre: (what it wants loaded first).
module_needs() {
    tr '\0' '\n' <"$1" | sed -n -e 's/^depends=//p' -e 's/^softdep=pre: *//p' | sed -e 's/post:.*//' | tr ',' ' '
}
