# Decides which package versions apt would install today. The keys of the parts come from these lists, so that a security update
# in Debian makes a new base and nothing else does.
#
# Leaves $packages_kernel and $packages_builder: files of sorted package=version lines; and $kernel_suite, where the kernel comes from.

resolve_packages() {
    say "asking $mirror for the current packages"
    use_apt_of "$suite"
    local lists
    if ! apt-get -q update >"$scratch/apt-update.log" 2>&1; then
        use_last_resolution
        return
    fi
    lists=$cache/resolved/$( (recipe_key && apt_release_bytes) | key_of_input)
    [[ -d $lists ]] || resolve_into "$lists"
    ln -sfnT "$(basename "$lists")" "$cache/resolved/last-$(recipe_key)"
    use_resolution "$lists"
}

# Without the archive the last answer it gave for this very recipe will do.
use_last_resolution() {
    local last
    last=$cache/resolved/last-$(recipe_key)
    [[ -d $last ]] || fail "the Debian archive cannot be used and nothing is cached for this recipe: $(tail -n 3 "$scratch/apt-update.log")" \
        "Check the network, or point EMBERBOX_DEBIAN_MIRROR and EMBERBOX_DEBIAN_SECURITY_MIRROR at a mirror."
    warn "the Debian archive cannot be used, so the cached base may lack updates: $(grep -m1 '^[EW]:' "$scratch/apt-update.log")"
    use_resolution "$last"
}

use_resolution() {
    packages_kernel=$1/kernel packages_builder=$1/builder kernel_suite=$(<"$1/kernel-suite")
    [[ $kernel_suite == "$suite" ]] || warn "the kernel is that of Debian $kernel_suite: $(<"$packages_kernel")"
}

recipe_key() { { recipe_bytes steps/resolve.sh && cat "$package_list" && echo "$mirror $security_mirror ${kernel_suites[*]}"; } | key_of_input; }

# The signed release files: unchanged as long as no package changed.
apt_release_bytes() { sed -n '/^SHA256:/,/^-----BEGIN/p' "$cache"/apt/lists/*InRelease; }

resolve_into() {
    local work=$scratch/resolved
    mkdir -p "$work" "$cache/resolved"
    resolve_kernel "$work"
    simulated_install >"$work/builder"
    mv -T "$work" "$1"
}

# The first suite that has a cloud kernel provides it.
resolve_kernel() {
    local from
    for from in "${kernel_suites[@]}"; do
        if (use_apt_of "$from" && update_unless_done "$from" && current_kernel_package >"$1/kernel"); then
            echo "$from" >"$1/kernel-suite"
            return
        fi
        warn "no cloud kernel in $from"
    done
    fail "none of ${kernel_suites[*]} has linux-image-cloud-amd64 in $mirror" "Is the mirror complete? Try another EMBERBOX_DEBIAN_MIRROR."
}

# The lists of $suite are fresh by now.
update_unless_done() { [[ $1 == "$suite" ]] || apt-get -q update >"$scratch/apt-update-$1.log" 2>&1; }

# The package the cloud kernel's metapackage stands for, e.g. linux-image-6.12.117+deb13-cloud-amd64=6.12.117-1
current_kernel_package() {
    local name
    name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
    [[ $name ]] && echo "$name=$(apt-cache policy "$name" | awk '$1 == "Candidate:" { print $2 }')"
}

# What $package_list names, beyond what every root has: for guest/build the builder root and the Debian image inside it, as one set.
simulated_install() {
    local wanted
    mapfile -t wanted < <(entries "$package_list")
    apt-get -q -s install '?essential' '?priority(required)' apt "${wanted[@]}" >"$scratch/simulation" 2>&1 ||
        fail "the packages cannot be installed together: $(tail -n 5 "$scratch/simulation")" "Look at $package_list."
    awk '$1 == "Inst" { sub(/^\(/, "", $3); print $2 "=" $3 }' "$scratch/simulation" | sort
}

# An apt that knows only one suite, our key and its own state; the host's sources and settings play no part.
use_apt_of() {
    local apt=$cache/apt
    [[ $1 == "$suite" ]] || apt=$cache/apt-$1
    mkdir -p "$apt"/{lists/partial,archives/partial,etc/apt.conf.d,etc/preferences.d}
    : >"$apt/status"
    sources "$1" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc "$apt/etc";
Dir::Etc::SourceList "$apt/sources.list";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
CONF
    export APT_CONFIG=$apt/apt.conf
}

# Signed by Debian's keys alone, whatever the host trusts.
sources() {
    printf "deb [arch=amd64 signed-by=$keyring] %s\n" "$mirror $1 main" "$mirror $1-updates main" \
        "$security_mirror $1-security main"
}
