//! What keeps `cairn node` from starting: each is said with what to do about it, before anything is
//! attached. Real lacks where they can be had: capabilities dropped, file systems unmounted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn_kernel_redirect::{Claim, Redirect, RedirectError};

use crate::lab::Lab;
use crate::mesh::{DEADLINE, Mesh, REFUSED, curl, until};

/// What a start says that fails; `wrapper` is put before the command, a shell that does things first.
fn refusal(mesh: &Mesh, wrapper: &[&str], pods: &Path) -> String {
    let cairn = match wrapper {
        [] => mesh.cairn(&[]),
        wrapper => mesh.cairn_under(wrapper),
    };
    let output = mesh
        .serving(cairn)
        .arg("--pods")
        .arg(pods)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        !mesh.lab.place().bpffs.exists(),
        "nothing half attached: {said}"
    );
    said
}

#[test]
fn a_wrong_list_of_pods_is_told_with_line_and_remedy() {
    let Some(mesh) = Mesh::new() else { return };
    let pods = mesh.path("wrong.yaml");
    fs::write(&pods, "- {name: a, namespce: shop}\n").unwrap();
    let said = refusal(&mesh, &[], &pods);
    assert!(said.contains("wrong.yaml:1:"), "{said}");
    assert!(said.contains("did you mean `namespace`"), "{said}");
    let said = refusal(&mesh, &[], Path::new("/nowhere/pods.yaml"));
    assert!(said.contains("/nowhere/pods.yaml: No such file"), "{said}");
}

#[test]
fn a_missing_capability_is_named() {
    let Some(mesh) = Mesh::new() else { return };
    let pods = mesh.path("pods.json");
    for (dropped, named) in [
        ("-net_admin", "CAP_NET_ADMIN"),
        ("-sys_admin", "CAP_SYS_ADMIN"),
        ("-sys_admin,-bpf", "CAP_BPF and CAP_SYS_ADMIN"),
    ] {
        let wrapper = ["setpriv", "--bounding-set", dropped, "--inh-caps", dropped];
        let said = refusal(&mesh, &wrapper, &pods);
        let expected = format!("this needs {named}, which this process does not have");
        assert!(said.contains(&expected), "{said}");
        assert!(
            said.contains("run it as root, or give the container"),
            "{said}"
        );
    }
}

/// In a mount namespace of its own, after `first`: the machine keeps what it has.
fn apart(first: &str) -> [String; 6] {
    let script = format!("{first} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned)
}

#[test]
fn without_cgroup_v2_the_way_to_get_it_is_told() {
    let Some(mesh) = Mesh::new() else { return };
    let wrapper = apart("umount -a -l -t cgroup2");
    let wrapper = wrapper.each_ref().map(String::as_str);
    let said = refusal(&mesh, &wrapper, &mesh.path("pods.json"));
    assert!(said.contains("cgroup v2 is not mounted"), "{said}");
    assert!(
        said.contains("systemd.unified_cgroup_hierarchy=1"),
        "{said}"
    );
}

#[test]
fn where_no_bpf_file_system_can_be_had_the_mount_to_make_is_told() {
    let Some(mesh) = Mesh::new() else { return };
    let wrapper = apart("umount -a -l -t bpf && mount -t tmpfs none /sys/fs");
    let wrapper = wrapper.each_ref().map(String::as_str);
    let said = refusal(&mesh, &wrapper, &mesh.path("pods.json"));
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
}

/// In a mount namespace of its own it mounts one, and steers: pins are gone with that namespace.
#[test]
fn a_bpf_file_system_that_is_not_mounted_is_mounted() {
    let Some(mesh) = Mesh::new() else { return };
    let wrapper = apart("umount -a -l -t bpf");
    let wrapper = wrapper.each_ref().map(String::as_str);
    let agent = mesh.start(mesh.cairn_under(&wrapper));
    let (_, text) = curl(&mesh.client, &["http://10.96.0.10/"]);
    assert!(text.ends_with(" 200\n"), "{text} {}", agent.stderr());
    assert!(
        Redirect::inspect(mesh.lab.place()).unwrap().is_none(),
        "not here"
    );
}

#[test]
fn a_pod_whose_namespace_is_gone_is_told_and_the_others_are_served() {
    let Some(mesh) = Mesh::new() else { return };
    let listed = fs::read_to_string(mesh.path("pods.json")).unwrap();
    let gone = "{\"name\": \"gone\", \"namespace\": \"shop\", \"serviceAccount\": \"gone\", \
        \"netns\": \"/run/netns/cairnlab-none\", \"cgroup\": \"/sys/fs/cgroup\"}, ";
    let both = listed.replacen('[', &format!("[{gone}"), 1);
    crate::mesh::replace(&mesh.path("pods.json"), &both);
    let agent = mesh.agent();
    let log = agent.stderr();
    assert!(log.contains("steering failing=1"), "{log}");
    assert!(
        log.contains("/run/netns/cairnlab-none: No such file"),
        "{log}"
    );
    assert!(
        log.contains("give the path of the pod's namespace"),
        "{log}"
    );
    assert!(
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    );

    // So are the others' connections counted, and closed.
    let pods = mesh.path("pods.json");
    let found = mesh.ask(&["connections", "--pods", pods.to_str().unwrap()]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains("shop/gone: not looked at"), "{text}");
}

/// A start that fails after it attached takes off what was not there before, and nothing else.
#[test]
fn what_a_failed_start_attached_goes_unless_somebody_had_it_attached_before() {
    let Some(lab) = Lab::new() else { return };
    let pinned = || Redirect::inspect(lab.place()).unwrap().is_some();
    let claim = Claim::take(lab.place()).unwrap();
    drop(lab.attach());
    assert!(pinned());
    claim.give_up().unwrap();
    assert!(!pinned(), "nothing half attached");
    drop(claim);

    drop(lab.attach());
    let claim = Claim::take(lab.place()).unwrap();
    let taken = Claim::take(lab.place()).unwrap_err();
    assert!(matches!(taken, RedirectError::Claimed { .. }), "{taken}");
    drop(lab.attach());
    claim.give_up().unwrap();
    assert!(pinned(), "it was there");
    drop(claim);
    assert!(pinned());
    drop(Claim::take(lab.place()).unwrap());
}

/// Two would steer the same connections, each to listeners of its own.
#[test]
fn a_redirect_that_is_pinned_elsewhere_is_told_and_left_alone() {
    let Some(lab) = Lab::new() else { return };
    drop(lab.attach());
    let mut elsewhere = lab.place().clone();
    elsewhere.bpffs.as_mut_os_string().push("-elsewhere");
    let attach = || Redirect::attach(&elsewhere, &lab.waypoint_cgroup());
    let refused = attach().unwrap_err();
    assert!(
        matches!(refused, RedirectError::Stranger { .. }),
        "{refused}"
    );
    let said = refused.to_string();
    assert!(said.contains("cairn node detach --bpffs FOLDER"), "{said}");
    assert!(!elsewhere.bpffs.exists(), "nothing half attached");
    assert!(Redirect::inspect(lab.place()).unwrap().is_some());

    drop(lab.attach());
    Redirect::detach(lab.place()).unwrap();
    drop(attach().unwrap());
    Redirect::detach(&elsewhere).unwrap();
}

#[test]
fn an_identity_that_can_not_be_loaded_is_told_before_anything_is_attached() {
    let Some(mesh) = Mesh::new() else { return };
    fs::remove_dir_all(mesh.path("shop/waypoint")).unwrap();
    let said = refusal(&mesh, &[], &mesh.path("pods.json"));
    assert!(said.contains("load the identity"), "{said}");
}

#[test]
fn a_second_agent_ends_and_the_first_goes_on() {
    let Some(mesh) = Mesh::new() else { return };
    let agent = mesh.agent();
    let mut second = mesh.serving(mesh.cairn(&[]));
    second.arg("--pods").arg(mesh.path("pods.json"));
    let output = second.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let bpffs = mesh.lab.place().bpffs.display().to_string();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("another agent works with {bpffs}; end it first");
    assert!(said.contains(&expected), "{said}");
    let detach = mesh.ask(&["detach"]);
    let said = String::from_utf8(detach.stderr).unwrap();
    assert!(said.contains(&expected), "{said}");
    assert!(
        curl(&mesh.client, &["http://10.96.0.10/"])
            .1
            .ends_with(" 200\n")
    );
    drop(agent);
    let _next = mesh.agent();
}

/// As an upgrade does it, the file is another one while the old process runs.
#[test]
fn a_guard_is_started_though_the_programs_file_was_replaced() {
    let Some(mesh) = Mesh::new() else { return };
    let copy = mesh.path("cairn");
    fs::copy(cairn_conformance::workspace::cairn(), &copy).unwrap();
    let agent = mesh.start(mesh.cairn_of(&copy));
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "another version").unwrap();
    let guard = || child_of(agent.id());
    let first = guard().expect("a guard");
    let kill = Command::new("kill").args(["-KILL", &first]).status();
    assert!(kill.unwrap().success());
    until("another guard is there", DEADLINE, || {
        guard().is_some_and(|now| now != first)
    });
    let log = agent.stderr();
    assert!(
        log.contains("the guard has ended, another one is started"),
        "{log}"
    );
    assert!(!log.contains("no guard can be started"), "{log}");
    // It does what it is for.
    agent.signal("STOP");
    until("the listeners are taken away", DEADLINE, || {
        mesh.status().pods.iter().all(|pod| !pod.listening)
    });
    assert_eq!(curl(&mesh.client, &["http://10.96.0.10/"]).0, REFUSED);
    agent.signal("CONT");

    // It ends with its agent, however that ends.
    let last = guard().expect("a guard");
    agent.signal("KILL");
    until("the guard is gone", DEADLINE, || {
        !Path::new("/proc").join(&last).exists()
    });
}

/// The process that another one started, if it lives.
fn child_of(process: u32) -> Option<String> {
    let found = Command::new("pgrep")
        .args(["-P", &process.to_string(), "-r", "S,R,D"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    text.lines().next().map(str::to_owned)
}
