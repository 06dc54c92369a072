#!/usr/bin/env bash
# lane.sh: Cairn's image under a real kubelet, by hand (`make kubelet`). One node in network, mount and process
# namespaces that end with this script: etcd, kube-apiserver, controllers, containerd, kubelet, and an istiod that signs
# certificates. There is no kube-proxy and no DNS: the API server and istiod are called by their addresses. Needs root.
set -euo pipefail
cd "$(dirname "$0")"
repository="$(cd ../.. && pwd)"
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || { echo "kubelet: this needs root: nothing is tested under a kubelet" >&2; exit 1; }
    for part in kubelet/pause istiod/pilot-discovery; do
        [ -e "$repository/target/$part" ] && continue
        echo "kubelet: without target/$part nothing is tested under a kubelet" >&2
        [ "${REQUIRE_KUBELET:-}" != 1 ]
        exit
    done
    work="$(mktemp -d)"
    # Other folders of cgroups may go while they are listed: that is no failure.
    cgroups() { find /sys/fs/cgroup -type d -path '*/k8s.io*' 2>/dev/null | sort || true; }
    cgroups >"$work/cgroups"
    clean_up() {
        code=$?
        trap - EXIT
        # It ignores SIGTERM; its namespaces end with it.
        { kill -KILL "$inside" && wait "$inside"; } 2>/dev/null || true
        for _ in {1..50}; do
            cgroups | comm -13 "$work/cgroups" - | sort -r | xargs -r rmdir 2>/dev/null && break
            sleep 0.1
        done
        [ "$code" = 0 ] && rm -rf "$work" || echo "kubelet: what was written is in $work" >&2
        exit "$code"
    }
    unshare -m -n -p -f --kill-child --mount-proc "./$(basename "$0")" inside "$work" &
    inside=$!
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    code=0
    wait "$inside" || code=$?
    exit "$code"
fi
work="$2" parts="$repository/target/kubelet" cluster="$repository/target/kube/cluster"
mount --make-rshared /
# Where containerd, its plugins and the kubelet write whatever their options say.
for folder in /run /opt /var/log /var/lib /usr/libexec; do mount -t tmpfs tmpfs "$folder"; done
# The kubelet would set these for the whole machine: it finds what it wants, and in a file.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
    kernel/keys/root_maxbytes=25000000; do
    file="$work/$(basename "${setting%=*}")"
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
export PATH="$parts/root/usr/bin:$parts/root/usr/sbin:$PATH" KUBECONFIG="$work/kubeconfig"
export LD_LIBRARY_PATH="$parts/root/usr/lib/x86_64-linux-gnu"
trap 'umount -R "$work" 2>/dev/null || true' EXIT
mount --bind "$work" "$work"
ip link set lo up
# The first is the Service `kubernetes`, the second the node: pods reach both by their default route.
for address in 10.96.0.1 10.88.0.1; do ip addr add "$address/32" dev lo; done
echo 1 >/proc/sys/net/ipv4/ip_forward
kubectl() { "$repository/target/kube/venv/bin/kubectl" "$@"; }
start() { local name="$1"; shift; "$@" >"$work/$name.log" 2>&1 & }
until_true() { # WHAT SECONDS COMMAND...
    local what="$1" end=$((SECONDS + $2)); shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "kubelet: not in time: $what" >&2; exit 1; }
        sleep 0.3
    done
    echo "kubelet: $what"
}
openssl genrsa -out "$work/accounts.key" 2048 2>/dev/null
echo administrator,administrator,1,system:masters >"$work/tokens.csv"
start etcd "$cluster" etcd "$work/etcd" 2379 2380
start api "$cluster" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=443 \
    --service-cluster-ip-range=10.96.0.0/16 --cert-dir="$work/certificates" --token-auth-file="$work/tokens.csv" \
    --service-account-signing-key-file="$work/accounts.key" --service-account-key-file="$work/accounts.key" \
    --bind-address=0.0.0.0 --advertise-address=10.88.0.1 --authorization-mode=RBAC --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc
cat >"$KUBECONFIG" <<X
{"apiVersion": "v1", "kind": "Config", "current-context": "lane",
 "contexts": [{"name": "lane", "context": {"cluster": "lane", "user": "administrator"}}],
 "clusters": [{"name": "lane", "cluster": {"server": "https://10.96.0.1", "insecure-skip-tls-verify": true}}],
 "users": [{"name": "administrator", "user": {"token": "administrator"}}]}
X
mkdir "$work/cni" "$work/istiod"
cat >"$work/containerd.toml" <<X
version = 2
root = "$work/containerd"
state = "/run/containerd-state"
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "lane.invalid/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$parts/root/usr/lib/cni"
conf_dir = "$work/cni"
X
cat >"$work/cni/lane.conflist" <<X
{"cniVersion": "0.4.0", "name": "lane", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
 "ipam": {"type": "host-local", "dataDir": "$work/ipam", "ranges": [[{"subnet": "10.89.0.0/24"}]],
          "routes": [{"dst": "0.0.0.0/0"}]}}]}
X
cat >"$work/kubelet.yaml" <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix:///run/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 50Mi}
X
start containerd containerd -c "$work/containerd.toml"
until_true "the API server is ready" 60 curl -skf https://10.96.0.1/readyz
start controllers "$cluster" controllers "$KUBECONFIG" "$work/certificates/apiserver.crt"
mkdir -p "$work/pause"
cp "$parts/pause" "$work/pause/pause"
strip -o "$work/cairn" "$repository/target/debug/cairn"
env -u LD_LIBRARY_PATH sh "$repository/deploy/image-root.sh" "$work/cairn" "$work/image"
python3 image.py "$work/pause" lane.invalid/pause:1 "$work/pause.tar" /pause 65535
python3 image.py "$work/image" docker.io/library/cairn:lane "$work/cairn.tar" /usr/local/bin/cairn 1337:1337
until_true "containerd answers" 30 ctr -a /run/containerd.sock version
for image in pause cairn; do
    ctr -a /run/containerd.sock -n k8s.io images import --snapshotter native "$work/$image.tar" >/dev/null
done
start kubelet "$parts/bin/kubelet" --config="$work/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$work/kubelet" \
    --hostname-override=node --node-ip=10.88.0.1 --cert-dir="$work/kubelet-certificates"
start bind python3 bind.py
kubectl create -f "$repository/target/kube/crds" >/dev/null 2>&1
until_true "the node is ready" 60 kubectl wait --for=condition=Ready node/node --timeout=1s
kubectl taint nodes node node.kubernetes.io/not-ready- >/dev/null 2>&1 || true
for namespace in istio-system cairn-system shop; do kubectl create namespace "$namespace" >/dev/null; done
kubectl label namespace cairn-system shop pod-security.kubernetes.io/enforce=restricted >/dev/null
cd "$work/istiod"
start istiod env POD_NAMESPACE=istio-system POD_NAME=istiod-0 CLUSTER_ID=Kubernetes REVISION=default \
    PILOT_ENABLE_AMBIENT=true ISTIOD_CUSTOM_HOST=10.88.0.1 VALIDATION_WEBHOOK_CONFIG_NAME= INJECTION_WEBHOOK_CONFIG_NAME= \
    "$repository/target/istiod/pilot-discovery" discovery --kubeconfig="$KUBECONFIG" --secureGRPCAddr=0.0.0.0:15012
cd - >/dev/null
until_true "istiod gives its roots" 60 kubectl -n shop get configmap istio-ca-root-cert
"$repository/target/helm" "$repository/deploy/helm/cairn" cairn cairn-system \
    '{"image": {"repository": "docker.io/library/cairn", "tag": "lane"}, "istio": {"caAddress": "10.88.0.1:15012"}}' \
    2>/dev/null | kubectl apply -f - >/dev/null 2>&1
rollout() { kubectl -n "$1" rollout status "deployment/$2" --timeout=1s; }
until_true "both controllers are ready" 60 rollout cairn-system cairn-controller
kubectl apply -f - >/dev/null <<X
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
X
programmed() { kubectl -n shop wait --for=condition="Programmed=$1" gateway/waypoint --timeout=1s; }
pod() { kubectl -n shop get pods -o name | head -n 1; }
until_true "the waypoint is programmed" 60 programmed True
# Fails with what is there instead.
expect() { # WHAT WANTED SEEN
    [ "$2" = "$3" ] || { echo "kubelet: $1: expected \"$2\", saw \"$3\"" >&2; exit 1; }
    echo "kubelet: $1: $2"
}
leader() { kubectl -n cairn-system get leases -o jsonpath='{.items[*].spec.holderIdentity}'; }
another_leads() { [ -n "$(leader)" ] && [ "$(leader)" != "$first" ]; }
for made in horizontalpodautoscaler poddisruptionbudget; do
    expect "the API server took the $made" waypoint \
        "$(kubectl -n shop get "$made" waypoint -o jsonpath='{.metadata.name}' 2>&1)"
done
before="$(pod)"
kubectl -n shop get "$before" --watch -o jsonpath='{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}' \
    >"$work/exit-codes" 2>&1 &
watch=$!
until_true "the waypoint's pod is watched" 10 test -s "$work/exit-codes"
began="$SECONDS"
kubectl -n shop delete "$before" --wait >/dev/null
[ $((SECONDS - began)) -lt 30 ] || { echo "kubelet: an idle waypoint took all of its grace period" >&2; exit 1; }
until_true "the waypoint's end was told" 10 grep -q . "$work/exit-codes"
kill "$watch"
expect "the waypoint's exit code" 0 "$(grep . "$work/exit-codes" | tail -n 1)"
until_true "another pod is ready in its place" 60 rollout shop waypoint
[ "$(pod)" != "$before" ] || { echo "kubelet: $before is still there" >&2; exit 1; }
until_true "the waypoint is programmed again" 30 programmed True
first="$(leader)"
echo "kubelet: $first leads"
kubectl -n cairn-system delete pod "${first%%_*}" --wait >/dev/null
until_true "another controller leads" 60 another_leads
until_true "both controllers are ready again" 60 rollout cairn-system cairn-controller
"$work/cairn" status --kubeconfig "$KUBECONFIG" | tee "$work/status"
expect "status tells of replicas" "  replicas  1 ready of 1" "$(grep '^  replicas' "$work/status")"
"$work/cairn" doctor --kubeconfig "$KUBECONFIG" | tee "$work/doctor"
expect "pods that doctor tells to be in force" 1 "$(grep -c '^Pod shop/waypoint-.* ready, snapshot [0-9]* in force' "$work/doctor")"
restarts="$(kubectl get pods -A -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}')"
case "$restarts" in *[1-9]*) echo "kubelet: containers were started again: $restarts" >&2; exit 1 ;; esac
echo "kubelet: all of it is as it should be"
