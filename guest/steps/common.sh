# Messages, host checks and the cache: what every step stands on.

started=$EPOCHREALTIME

# One line per step with the seconds since the start, so that a slow step is seen.
say() { printf '[%6.1fs] %s\n' "$(bc_seconds)" "$*" >&2; }
bc_seconds() { awk -v a="$started" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'; }
warn() { say "WARNING: $*"; }

# fail <what went wrong> [<what to do about it>]
fail() {
    printf 'guest/build: %s\n' "$1" >&2
    if (($# > 1)); then printf '%s\n' "$2" >&2; fi
    exit 1
}

check_host() {
    ((EUID == 0)) || fail "must run as root (it makes file systems with other users' files)" "Try: sudo $0 ..."
    [[ $(uname -m) == x86_64 ]] || fail "only x86_64 guests are supported" "Run it on an x86_64 machine."
    check_tools
    [[ -s $keyring ]] || fail "Debian's signing keys are missing ($keyring)" \
        "Install them (Ubuntu has the package too): apt-get install debian-archive-keyring"
}

# The commands used and the packages that bring them.
check_tools() {
    local missing=() command package
    while read -r command package; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("$package")
    done <<'TOOLS'
mmdebstrap mmdebstrap
cpio cpio
xz xz-utils
zstd zstd
flock util-linux
unshare util-linux
apt-get apt
dpkg-deb dpkg
openssl openssl
perl perl-base
tar tar
TOOLS
    ((${#missing[@]} == 0)) || fail "missing tools" "Install them: apt-get install $(printf '%s\n' "${missing[@]}" | sort -u | paste -sd' ')"
    export PATH=$PATH:/usr/sbin:/sbin
}

# One run at a time per cache. Children inherit the lock, so what an interrupted run left is really abandoned.
open_cache() {
    mkdir -p "$cache" || fail "cannot write to $cache" "Choose another place with --cache."
    cache=$(cd "$cache" && pwd)
    exec {lock}>"$cache/lock"
    flock -n "$lock" || { say "waiting for another guest/build on $cache" && flock "$lock"; }
    rm -rf --one-file-system "$cache"/tmp.*
    scratch=$(mktemp -d "$cache/tmp.XXXXXX")
    chmod 755 "$scratch" # apt's and mmdebstrap's unprivileged helpers pass through it
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# ensure <part> <key>: leaves the directory of that part in $part_dir[part], calling make_<part> <dir> if it is not cached.
# A part appears in the cache whole (rename) or not at all.
declare -A part_dir part_key
ensure() {
    local part=$1 key=$2 dir=$cache/$1/$2
    part_key[$part]=$key part_dir[$part]=$dir
    if [[ -d $dir ]]; then
        say "$part $key: cached"
        touch "$dir"
        return
    fi
    say "$part $key: making it"
    mkdir -p "$cache/$part" "$scratch/$part"
    "make_$part" "$scratch/$part"
    sync -f "$scratch/$part"
    mv -T "$scratch/$part" "$dir"
    say "$part $key: made"
}

# Keeps this and the previous version of each part: rollback is cheap, disks do not fill up.
forget_old_parts() {
    local part
    for part in "${!part_dir[@]}"; do
        find "$cache/$part" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- |
            xargs -r -d '\n' rm -rf --one-file-system
    done
}

# Short content key of everything on standard input.
key_of_input() { sha256sum | cut -c1-16; }

# Names and contents of recipe files, in a fixed order.
recipe_bytes() { (cd "$guest" && find "$@" -type f -print0 | sort -z | xargs -0 sha256sum); }

# A recipe list without comments and empty lines.
entries() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1"; }

# describe <file>: the JSON object base.json has for it, made once when the file is made. A sparse file is hashed up to the end of
# its last data extent (data_bytes): hashing 24 GiB of holes would take minutes.
describe() {
    local data
    data=$(end_of_data "$1")
    printf '"%s": {"sha256": "%s", "bytes": %s, "data_bytes": %s}\n' "$(basename "$1")" \
        "$(head -c "$data" "$1" | openssl dgst -sha256 -r | cut -d' ' -f1)" "$(stat -c %s "$1")" "$data"
}

end_of_data() {
    perl -e 'open(my $f, "<", $ARGV[0]) or die $!; my $end = 0;
        while (defined(my $data = sysseek($f, $end, 3))) { $end = sysseek($f, $data, 4) } # SEEK_DATA, SEEK_HOLE
        printf "%d\n", $end' "$1"
}
