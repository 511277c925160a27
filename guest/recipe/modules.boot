# Loaded by every guest before it mounts its root. Names as modinfo(8) knows them; built-in ones are skipped.
virtio_mmio
virtio_blk
virtio_net
virtio_rng
virtio_balloon
crc32c_intel
ext4
overlay
inet_diag
tcp_diag
