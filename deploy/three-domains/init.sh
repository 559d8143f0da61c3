#!/bin/sh
# Makes the folder domains beside where it is called: three domains DE, AT, IT and an orchestrator, on one host.
#
# Each domain has an address (127.0.1.1, 127.0.2.1, 127.0.3.1), a certificate authority, a controller and a
# KME at its border of its own. DE and IT border on AT alone. The orchestrator has 127.0.9.1.
# PORT_BASE (default 8443) is the port for applications; 8444 is for peers, 8445 for the operator, 8446 for
# partners (ETSI GS QKD 020), 8447 for the controller and the orchestrator.
set -eu
base="${PORT_BASE:-8443}"
border=$((base + 3)) control=$((base + 4))
address() { case "$1" in de) echo 127.0.1.1 ;; at) echo 127.0.2.1 ;; it) echo 127.0.3.1 ;; esac; }
upper() { echo "$1" | tr a-z A-Z; }
mkdir -p domains
cd domains

for d in de at it; do
  ip=$(address $d) D=$(upper $d)
  mkdir $d
  openqci pki create $d/ca
  openqci control init $d/control --domain "$D" --authority $d/ca --host "$ip" --listen "$ip:$control"
  openqci kme init $d/kme --kme-id kme-$d --authority $d/ca --host "$ip" --bind "$ip" --port-base "$base" \
    --sae bank.$d
  openqci pki issue $d/ca --role sae --name bank.$d --out $d/bank
  openqci pki issue $d/ca --role operator --name operator --out $d/operator
done

domains=""
for d in de at it; do
  domains="$domains --domain $(upper $d)=$d/ca/ca.pem,$d/control/tls/cert.pem"
done
openqci pki create ca
# shellcheck disable=SC2086
openqci orchestrator init orchestrator --authority ca --host 127.0.9.1 --listen "127.0.9.1:$control" $domains
openqci pki issue ca --role operator --name operator --out operator

partner() { # of which domain, with which domain, agreement
  cat >>"$1/kme/kme.toml" <<END

[[partner]]
kme_id = "kme-$2"
domain = "$(upper "$2")"
url = "https://$(address "$2"):$border"
authority = "../../$2/ca/ca.pem"
own_callback_url = "https://$(address "$1"):$border/kmapi/v1/ext_keys/ack"
agreement = "$3"

[[agreement]]
name = "$3"
quota_bytes = 100_000_000
window_s = 86_400.0
END
}
for d in de at it; do
  ip=$(address $d) file=$d/kme/kme.toml
  sed "s/^operator = .*/operator = \"$ip:$((base + 2))\"/; /^operator = /a etsi020 = \"$ip:$border\"" \
    "$file" >"$file.new"
  mv "$file.new" "$file"
  cat >>"$file" <<END

[domain]
signer = "../control/tls/cert.pem"
controller = "https://$ip:$control"

[etsi020]
domain = "$(upper $d)"

[demand]
low_keys = 16
high_keys = 32
END
  cat >>$d/control/control.toml <<END

[orchestrator]
url = "https://127.0.9.1:$control"
name = "orchestrator"
authority = "../../ca/ca.pem"
signer = "../../orchestrator/tls/cert.pem"
offer_file = "offer.yaml"
END
  cat >$d/control/offer.yaml <<END
countries: [$(upper $d)]
operator: operator-$d
trust: 2
transit_bps: 100000
epsilon: 1.0e-10
price_eur_per_mib: 2.5
END
done
partner de at de-at
partner at de de-at
partner at it at-it
partner it at at-it

domain() { # domain, borders
  cat >"$1/control/domain.yaml" <<END
domain: $(upper "$1")
nodes:
  - {kme_id: kme-$1, country: $(upper "$1"), operator: operator-$1, trust: 2, saes: [bank.$1]}
borders:
$2
END
}
domain de "  - {kme_id: kme-de, partner_domain: AT, partner_kme: kme-at}"
domain at "  - {kme_id: kme-at, partner_domain: DE, partner_kme: kme-de}
  - {kme_id: kme-at, partner_domain: IT, partner_kme: kme-it}"
domain it "  - {kme_id: kme-it, partner_domain: AT, partner_kme: kme-at}"
