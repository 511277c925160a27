# Puts the parts into --out. base.json comes last: whoever sees it sees files that fit it.

publish() {
    say "publishing into $out"
    mkdir -p "$out" || fail "cannot write to $out" "Choose another place with --out."
    place "${part_dir[kernel]}/vmlinuz"
    place "${part_dir[initramfs]}/initramfs"
    place "${part_dir[builder]}/builder.ext4"
    base_json >"$out/.base.json.new"
    mv "$out/.base.json.new" "$out/base.json"
    say "done: base $(base_key)"
}

# A hard link if both are on one file system, else a copy that stays sparse. Both are read-only to their users.
place() {
    local target new
    target=$out/$(basename "$1") new=$out/.$(basename "$1").new
    rm -f "$new"
    [[ $1 -ef $target ]] && return
    ln "$1" "$new" 2>/dev/null || cp --sparse=always --reflink=auto "$1" "$new"
    mv -f "$new" "$target"
}

base_key() { echo "${part_key[kernel]} ${part_key[builder]} ${part_key[initramfs]}" | key_of_input; }

base_json() {
    local kernel=${part_dir[kernel]} builder=${part_dir[builder]} initramfs=${part_dir[initramfs]}
    cat <<JSON
{
  "format": 1,
  "key": "$(base_key)",
  "name": "debian-13",
  "debian": "$(<"$builder/debian-version")",
  "kernel": "$(<"$kernel/version")",
  "buildah": "$(<"$builder/buildah-version")",
  "files": {
    $(<"$kernel/describe"),
    $(<"$initramfs/describe"),
    $(<"$builder/describe")
  }
}
JSON
}
