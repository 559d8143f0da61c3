#!/bin/sh
# Makes the folder sites beside this script: certificates, modules and two nodes for compose.yaml.
# The hosts' names are HOST_A, HOST_B and HOST_M (default: those of the composition).
set -eu
cd "$(dirname "$0")"
a="${HOST_A:-site-a}" b="${HOST_B:-site-b}" m="${HOST_M:-modules}"
mkdir -p sites
cd sites
openqci pki create pki
for app in app-a app-b; do openqci pki issue pki --role sae --name "$app" --out "$app"; done
openqci pki issue pki --role operator --name operator --out operator
openqci pki issue pki --role security-officer --name officer --out officer
openqci kme modules modules --init --nodes kme-a,kme-b --host "$m" --bind 0.0.0.0 --speed 100
node() { # folder, KME, host, application, peer, peer's host, peer's application, end, port of the module, leads
  openqci kme init "$1" --kme-id "$2" --host "$3" --authority pki --laboratory --sae "$4" --peer "$5" \
    --peer-url "https://$6:8444" --peer-sae "$7" --link a-b --module-url "https://$m:$9" --module-sae "$5" \
    --module-credentials "../modules/node-$8" ${10:-}
}
node site-a kme-a "$a" app-a kme-b "$b" app-b a 9500 --leads
node site-b kme-b "$b" app-b kme-a "$a" app-a b 9501
