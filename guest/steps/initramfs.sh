# Part "initramfs": the agent as /init, the kernel modules, and the directories it mounts on. Uncompressed: the page cache shares it
# and the guest unpacks it faster.

initramfs_key() {
    { echo "${part_key[kernel]}" && sha256sum <"$agent" && recipe_bytes steps/initramfs.sh; } | key_of_input
}

make_initramfs() {
    local dir=$1 tree=$scratch/initramfs-tree
    check_agent
    mkdir -p "$tree"/{proc,sys,dev,run,newroot}
    cp -r "${part_dir[kernel]}/modules" "$tree/modules"
    cp "$agent" "$tree/init"
    chmod -R u=rwX,go=rX "$tree"
    chmod 755 "$tree/init"
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$tree" && find . -mindepth 1 -printf '%P\n' | sort | cpio --quiet -o -H newc --reproducible -R +0:+0) >"$dir/initramfs"
    describe "$dir/initramfs" >"$dir/describe"
}

# The kernel starts /init before there is any library: a program header of type 3 (PT_INTERP) means it would need one.
check_agent() {
    local kind
    kind=$(perl -e 'open(my $f, "<:raw", $ARGV[0]) or die $!; read($f, my $head, 4096);
        exit print "none\n" if substr($head, 0, 5) ne "\x7fELF\x02";
        my ($offset, $size, $count) = (unpack("Q<", substr($head, 32, 8)), unpack("S<S<", substr($head, 54, 4)));
        my @types = map { unpack("L<", substr($head, $offset + $_ * $size, 4)) } 0 .. $count - 1;
        print grep({ $_ == 3 } @types) ? "dynamic\n" : "static\n"' "$agent")
    case $kind in
        static) ;;
        dynamic) fail "$agent is linked dynamically" "Build it with --target x86_64-unknown-linux-musl." ;;
        *) fail "$agent is not a 64-bit ELF program" "Pass the static emberbox-agent binary." ;;
    esac
}
