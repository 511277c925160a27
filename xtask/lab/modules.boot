# Loaded by the initramfs; everything else is loaded from the root on demand. ext4 is built into Debian's kernel.
virtio_mmio
virtio_blk
crc32c_intel
