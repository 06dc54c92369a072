//! Cairn in a pod: a read-only root file system of its own with the volumes that the pod declares, the user that
//! it declares, its variables and arguments. The network is the machine's: each pod has an address of its own, so
//! "every address" becomes that one.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use super::api::collection;
use super::node::{Place, insist};
use super::pod::Pod;
use crate::workspace;

/// Where the node puts a certificate for pods that are given no authority to ask: the tests have none in the
/// cluster.
const IDENTITY: &str = "/var/run/secrets/cairn-identity";

/// Makes the root from nothing but the machine's libraries, then becomes the program. `$1` the root, `$2` the
/// program, `$3` user and group; then pairs of source and place, `--`, and the arguments.
const START: &str = r#"set -e
root=$1 program=$2 user=$3; shift 3
mount -t tmpfs -o mode=755 pod "$root"
mkdir "$root/usr" "$root/etc" "$root/dev" "$root/proc"
for folder in usr dev proc; do mount --rbind "/$folder" "$root/$folder"; done
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
for file in hosts resolv.conf nsswitch.conf; do
    if [ -e "/etc/$file" ]; then cp "/etc/$file" "$root/etc/$file"; fi
done
touch "$root/cairn"; mount --bind "$program" "$root/cairn"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all \
    --no-new-privs --pdeathsig KILL -- /cairn "$@""#;

/// The command that is the pod. Its files are in `folder`.
pub(super) async fn command(place: &Place, pod: &Pod, folder: &Path) -> Command {
    let root = folder.join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    let container = pod.container();
    let user = [container, pod.spec()].map(|of| of["securityContext"]["runAsUser"].as_u64());
    let user = user.into_iter().flatten().next().unwrap_or(65_532);
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            START,
            "pod",
        ])
        .arg(&root)
        .arg(workspace::cairn())
        .arg(user.to_string());
    for (source, at) in mounts(place, pod, folder).await {
        command.arg(source).arg(at);
    }
    let variables = variables(place, pod).await;
    command.arg("--");
    for field in ["command", "args"] {
        let words = container[field].as_array().into_iter().flatten();
        // The image's program is Cairn, and a pod that names it names no other.
        let words = words.skip(usize::from(field == "command"));
        command.args(
            words
                .filter_map(Value::as_str)
                .map(|word| expand(pod, word, &variables)),
        );
    }
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.envs(variables);
    command
}

/// `$(NAME)` is a variable; every address is the pod's own.
fn expand(pod: &Pod, word: &str, variables: &[(String, String)]) -> String {
    let mut word = word.to_owned();
    for (name, value) in variables {
        word = word.replace(&format!("$({name})"), value);
    }
    ["[::]:", "0.0.0.0:"].iter().fold(word, |word, every| {
        word.replace(every, &format!("{}:", pod.ip))
    })
}

async fn variables(place: &Place, pod: &Pod) -> Vec<(String, String)> {
    let container = pod.container();
    let mut variables = vec![
        (
            "KUBERNETES_SERVICE_HOST".to_owned(),
            place.server.ip().to_string(),
        ),
        (
            "KUBERNETES_SERVICE_PORT".to_owned(),
            place.server.port().to_string(),
        ),
        ("HOSTNAME".to_owned(), pod.name().to_owned()),
    ];
    for declared in container["env"].as_array().into_iter().flatten() {
        let name = declared["name"].as_str().unwrap_or_default().to_owned();
        let from = &declared["valueFrom"];
        let value = if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
            Some(pod.field(path))
        } else if let Some(key) = from["configMapKeyRef"]["key"].as_str() {
            let map = &from["configMapKeyRef"]["name"];
            let map = object(place, pod, "configmaps", map).await;
            map["data"][key].as_str().map(str::to_owned)
        } else {
            declared["value"].as_str().map(str::to_owned)
        };
        if let Some(value) = value {
            let value = expand(pod, &value, &variables);
            variables.push((name, value));
        }
    }
    for (name, port) in [
        ("CAIRN_HBONE_ADDR", 15008),
        ("CAIRN_METRICS_ADDR", 15020),
        ("CAIRN_READY_ADDR", 15021),
        ("CAIRN_ADMIN_ADDR", 15000),
    ] {
        if !variables.iter().any(|(given, _)| given == name) {
            variables.push((name.to_owned(), format!("{}:{port}", pod.ip)));
        }
    }
    if !variables.iter().any(|(name, _)| name == "CA_ADDR") {
        variables.push(("CAIRN_IDENTITY_DIR".to_owned(), IDENTITY.to_owned()));
    }
    variables
}

/// Folders of the pod's volumes, and where each is seen.
async fn mounts(place: &Place, pod: &Pod, folder: &Path) -> Vec<(PathBuf, String)> {
    let account = format!("{}/{}", pod.namespace(), pod.account());
    let identity = place.identities.folder_of(&account);
    readable(&identity);
    let mut mounts = vec![(identity, IDENTITY.to_owned())];
    let volumes = pod.spec()["volumes"].as_array();
    for mount in pod.container()["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let volume = volumes
            .into_iter()
            .flatten()
            .find(|volume| volume["name"] == mount["name"])
            .expect("a volume for each mount");
        let name = mount["name"].as_str().unwrap_or_default();
        let at = folder.join("volumes").join(name);
        std::fs::create_dir_all(&at).expect("a folder");
        for (path, text) in files(place, pod, volume).await {
            let path = at.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        readable(&at);
        let place = mount["mountPath"].as_str().unwrap_or_default();
        mounts.push((at, place.to_owned()));
    }
    mounts
}

/// For the pod's user, who is not the test's.
fn readable(folder: &Path) {
    let status = Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(folder)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "chmod");
}

/// Files of a volume, by path.
async fn files(place: &Place, pod: &Pod, volume: &Value) -> Vec<(String, String)> {
    if let Some(sources) = volume["projected"]["sources"].as_array() {
        let mut all = Vec::new();
        for source in sources {
            all.extend(source_files(place, pod, source).await);
        }
        return all;
    }
    source_files(place, pod, volume).await
}

async fn source_files(place: &Place, pod: &Pod, source: &Value) -> Vec<(String, String)> {
    let token = &source["serviceAccountToken"];
    if let Some(path) = token["path"].as_str() {
        let token = self::token(place, pod, token).await;
        return vec![(path.to_owned(), token)];
    }
    if let Some(items) = source["downwardAPI"]["items"].as_array() {
        let file = |item: &Value| {
            let path = item["path"].as_str().unwrap_or_default().to_owned();
            let field = item["fieldRef"]["fieldPath"].as_str().unwrap_or_default();
            (path, pod.field(field))
        };
        return items.iter().map(file).collect();
    }
    let map = &source["configMap"];
    let map = object(place, pod, "configmaps", &map["name"]).await;
    let files = map["data"].as_object().into_iter().flatten();
    files
        .map(|(path, text)| (path.clone(), text.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// A real token of the pod's account, bound to the pod.
async fn token(place: &Place, pod: &Pod, wanted: &Value) -> String {
    let audiences: Vec<_> = wanted["audience"].as_str().into_iter().collect();
    let accounts = collection("v1", pod.namespace(), "serviceaccounts");
    let request = json!({ "spec": {
        "audiences": audiences,
        "expirationSeconds": wanted["expirationSeconds"],
        "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid() },
    }});
    let path = format!("{accounts}/{}/token", pod.account());
    let answer = insist(&place.api, Method::POST, &path, Some(&request)).await;
    let token = answer
        .as_ref()
        .and_then(|answer| answer["status"]["token"].as_str());
    token.unwrap_or_default().to_owned()
}

/// An object of the pod's namespace, `null` where there is none.
async fn object(place: &Place, pod: &Pod, plural: &str, name: &Value) -> Value {
    let Some(name) = name.as_str() else {
        return Value::Null;
    };
    let path = format!("{}/{name}", collection("v1", pod.namespace(), plural));
    insist(&place.api, Method::GET, &path, None)
        .await
        .unwrap_or_default()
}
