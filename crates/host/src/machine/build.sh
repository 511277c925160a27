# Runs in a builder MicroVM: executes the Dockerfile in /context and writes the resulting file system to the disk `root`.
# Prints `@emberbox-step <name>` at the start of each step, and at the end the image's configuration. buildah's own output goes through.
set -euo pipefail

step() { printf '@emberbox-step %s\n' "$1"; }

exec 2>&1
arguments=()
while IFS= read -r -d '' pair; do
    arguments+=(--env "$pair")
done </run/emberbox/environment

if [ -e /run/emberbox/extra-ca.pem ]; then
    cat /etc/ssl/certs/ca-certificates.crt /run/emberbox/extra-ca.pem >/run/emberbox/ca.pem
    chmod 0644 /run/emberbox/ca.pem
    chmod 0755 /run/emberbox
    export SSL_CERT_FILE=/run/emberbox/ca.pem
    arguments+=(--volume /run/emberbox/ca.pem:/run/emberbox/ca.pem:ro)
fi
if [ -e /run/emberbox/auth.json ]; then
    export REGISTRY_AUTH_FILE=/run/emberbox/auth.json
fi

step dockerfile
buildah build --isolation oci --network host --layers=false --pull=missing "${arguments[@]}" \
    --tag localhost/emberbox-build --file /context/Dockerfile /context

step export
container=$(buildah from --pull=never localhost/emberbox-build)
root=$(buildah mount "$container")
# The disk is blank and lives as long as its snapshots: a journal and checksums of metadata would only cost time.
mke2fs -q -F -t ext4 -O '^has_journal,^metadata_csum,^resize_inode' -E assume_storage_prezeroed=1,nodiscard -m 0 -d "$root" /dev/emberbox/root
sync
# In parts, because lines have a largest length.
buildah inspect --type image localhost/emberbox-build | tr -d '\n' | fold -b -w 32000 | sed 's/^/@emberbox-image /'
echo
