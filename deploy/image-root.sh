#!/bin/sh
# image-root.sh BINARY FOLDER: what the image holds. The binary, the libraries that it names, and the certificates that
# the system trusts, for servers of token issuers' keys. Used by deploy/Dockerfile, and by its test.
set -eu
binary="$1" folder="$2"
install -D -m 755 "$binary" "$folder/usr/local/bin/cairn"
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$folder$library"
done
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
fi
