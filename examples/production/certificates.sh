#!/usr/bin/env bash
# Makes what a SuperLink with TLS and authenticated SuperNodes needs:
#   ca.crt, ca.key          the authority; ca.crt goes to every SuperNode and operator, ca.key nowhere
#   server.pem, server.key  the SuperLink's certificate and its key
#   keys/node0, node0.pub … one ECDSA key pair a SuperNode; the private half goes to that node alone
# What is there already is kept, so that a node can be added later.
set -euo pipefail

if [[ $# -lt 2 || ! "$2" =~ ^[0-9]+$ ]]; then
  echo "usage: certificates.sh FOLDER NUM_NODES [HOST …]" >&2
  echo "HOST: a name or address of the SuperLink beside localhost and 127.0.0.1" >&2
  exit 2
fi
folder="$1" nodes="$2"
for tool in openssl ssh-keygen; do
  command -v "$tool" >/dev/null || { echo "certificates.sh needs $tool; install it first." >&2; exit 2; }
done

# A certificate is valid for the names that it lists, and the SuperNodes must use one of them.
names="DNS:localhost,IP:127.0.0.1"
for host in "${@:3}"; do
  if [[ "$host" =~ ^[0-9.]+$ || "$host" == *:* ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi
done

umask 077
mkdir -p "$folder/keys"
cd "$folder"
new_key=(openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384)

if [[ ! -e ca.crt ]]; then
  "${new_key[@]}" -out ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=fl_shield example CA" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out ca.crt
fi
if [[ ! -e server.pem ]]; then
  "${new_key[@]}" -out server.key
  openssl req -new -key server.key -subj "/CN=superlink" -out server.csr
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 -days 365 \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names") \
    -out server.pem 2>/dev/null
  rm server.csr
  echo "$folder/server.pem is valid for $names."
fi
for ((node = 0; node < nodes; node++)); do
  [[ -e "keys/node$node" ]] || ssh-keygen -q -t ecdsa -b 384 -N "" -C "node$node" -f "keys/node$node"
done
chmod 644 ca.crt server.pem
echo "$folder/keys holds the keys of $nodes nodes."
