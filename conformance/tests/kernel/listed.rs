//! Pods that are listed by a process, `/proc/PID/ns/net`: a process id is given to another process once
//! its own has ended, and no pod may be taken for another one for that.

use serde_json::json;

use crate::lab::Pod;
use crate::mesh::{DEADLINE, Mesh, REFUSED, curl, replace, until};

#[test]
fn a_process_that_is_another_pods_now_takes_nobodys_identity_there() {
    let Some(mut mesh) = Mesh::new() else { return };
    let other = mesh.lab.pod("other");
    let mut process = mesh.client.app();
    let listed = json!([{
        "name": "client", "namespace": "shop", "serviceAccount": "client",
        "netns": format!("/proc/{}/ns/net", process.id()), "cgroup": mesh.client.cgroup,
    }]);
    replace(&mesh.path("pods.json"), &listed.to_string());
    let web = |pod: &Pod| curl(pod, &["http://10.96.0.10/"]);
    let agent = mesh.agent();
    assert!(
        web(&mesh.client).1.ends_with(" 200\n"),
        "{}",
        agent.stderr()
    );
    let before = mesh.status().pods;

    process.become_one_of(&other.netns, &other.cgroup);
    until("it is noticed", DEADLINE, || {
        agent
            .stderr()
            .contains("it stays enrolled while it is listed")
    });
    assert_eq!(mesh.status().pods, before);
    assert!(web(&mesh.client).1.ends_with(" 200\n"), "as before");
    // It is no pod of the list: direct, where nobody is. As the client it would have been answered.
    assert_eq!(web(&other).0, REFUSED);

    // One that starts now knows which pod there was, and not where it is.
    drop(agent);
    let agent = mesh.agent();
    let log = agent.stderr();
    assert!(log.contains("is that of a process in cgroup"), "{log}");
    assert!(
        log.contains("so each service's failure mode applies")
            || log.contains("unless the kernel knows it from before"),
        "{log}"
    );
    assert_eq!(web(&mesh.client).0, REFUSED, "known from before: refused");
    assert_eq!(web(&other).0, REFUSED);
    assert_eq!(mesh.status().counters.steered, 2);

    process.become_one_of(&mesh.client.netns, &mesh.client.cgroup);
    until("the pod is there again", DEADLINE, || {
        web(&mesh.client).1.ends_with(" 200\n")
    });
}

#[test]
fn a_link_to_a_processes_namespace_is_refused_with_the_reason() {
    let Some(mesh) = Mesh::new() else { return };
    let process = mesh.client.app();
    let link = mesh.path("client-netns");
    std::os::unix::fs::symlink(format!("/proc/{}/ns/net", process.id()), &link).unwrap();
    let by_link = Pod {
        netns: link,
        ..mesh.client.clone()
    };
    mesh.list(&[("client", &by_link)]);
    let log = mesh.agent().stderr();
    assert!(log.contains("is a link to that of a process"), "{log}");
    assert_eq!(mesh.status().pods, []);
}
