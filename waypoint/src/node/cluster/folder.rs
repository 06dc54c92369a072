//! What a kubelet calls the cgroup of a pod, by either of its drivers: the pod's uid in a folder's name. Looks at
//! no folder.

/// Of a pod that came by the API server: 8-4-4-4-12 digits.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Of a static pod, which the kubelet numbers by the hash of its file.
const HASH_DIGITS: usize = 32;

/// The uid of the pod whose cgroup has this name, as the API server writes it. `None`: it is no pod's.
///
/// | driver | name |
/// |---|---|
/// | cgroupfs | `pod5f0c...-...`, in `kubepods`, `kubepods/burstable` or `kubepods/besteffort` |
/// | systemd | `kubepods-besteffort-pod5f0c..._....slice`, for `-` stands for another level in names of slices |
pub(super) fn pod_uid(folder: &str) -> Option<String> {
    match folder.strip_suffix(".slice") {
        Some(slice) => {
            let (_, last) = slice.rsplit_once('-')?;
            uid(last.strip_prefix("pod")?, '_')
        }
        None => uid(folder.strip_prefix("pod")?, '-'),
    }
}

fn uid(text: &str, separator: char) -> Option<String> {
    let is_hex = |part: &str| {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        part.bytes().all(is_digit)
    };
    if text.len() == HASH_DIGITS && is_hex(text) {
        return Some(text.to_owned());
    }
    let parts: Vec<&str> = text.split(separator).collect();
    let lengths = parts.iter().map(|part| part.len());
    let is_uid = lengths.eq(GROUPS) && parts.iter().all(|part| is_hex(part));
    is_uid.then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "5f0c2c2e-8a0e-4a4d-9b0e-3f1f3f1f3f1f";

    #[test]
    fn both_drivers_name_a_pods_folder_by_its_uid() {
        let slice = UID.replace('-', "_");
        for name in [
            format!("pod{UID}"),
            format!("kubepods-pod{slice}.slice"),
            format!("kubepods-burstable-pod{slice}.slice"),
            format!("kubepods-besteffort-pod{slice}.slice"),
            // kind's kubelet has its cgroups below one of its own.
            format!("kubelet-kubepods-besteffort-pod{slice}.slice"),
        ] {
            assert_eq!(pod_uid(&name).as_deref(), Some(UID), "{name}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        for name in [format!("pod{hash}"), format!("kubepods-pod{hash}.slice")] {
            assert_eq!(pod_uid(&name).as_deref(), Some(hash), "{name}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_no_pods() {
        let slice = UID.replace('-', "_");
        for name in [
            "".to_owned(),
            "pod".to_owned(),
            "kubepods.slice".to_owned(),
            "kubepods-besteffort.slice".to_owned(),
            UID.to_owned(),
            format!("pod{UID}x"),
            format!("pod{UID}-pod{UID}"),
            format!("pods{UID}"),
            format!("xpod{UID}"),
            format!("Pod{UID}"),
            format!("pod{}", UID.to_uppercase()),
            // Each driver with the other's separator, or one's name in the other's place.
            format!("pod{slice}"),
            format!("kubepods-pod{UID}.slice"),
            format!("pod{slice}.slice"),
            format!("pod{UID}.slice"),
            format!("kubepods-pod{slice}"),
            format!("kubepods-pod{slice}.scope"),
            format!("kubepods-pod{slice}.slice.d"),
            format!("cri-containerd-{}.scope", "a".repeat(64)),
            format!("pod{}", "0123456789abcdef".repeat(2).replace('0', "g")),
            format!("pod../{UID}"),
            "kubepods-pod.slice".to_owned(),
            "-pod.slice".to_owned(),
            format!("pod{}", "ä".repeat(16)),
        ] {
            assert_eq!(pod_uid(&name), None, "{name}");
        }
    }

    proptest! {
        /// Two pods never have one name, whatever the names.
        #[test]
        fn a_name_is_of_the_uid_that_it_holds(name in "(kube-|pods-)?(pod)?[0-9a-f_-]{0,40}(\\.slice)?") {
            if let Some(uid) = pod_uid(&name) {
                let plain = name.replace('_', "-");
                prop_assert!(plain.contains(&format!("pod{uid}")), "{uid}");
                let bare = plain.strip_suffix(".slice").unwrap_or(&plain);
                prop_assert!(bare.ends_with(&*uid));
            }
        }
    }
}
