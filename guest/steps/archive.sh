# Which Debian, and where its packages come from: the same for the guests' base and for the lab.

readonly suite=trixie
# Where the kernel may come from, the first one first: a mirror that has lost Debian 13's cloud kernel still has Debian 12's.
read -ra kernel_suites <<<"${EMBERBOX_KERNEL_SUITES:-$suite bookworm}"
readonly kernel_suites
readonly mirror=${EMBERBOX_DEBIAN_MIRROR:-http://deb.debian.org/debian}
readonly security_mirror=${EMBERBOX_DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg
