//! What comes in at the desk of the controller, and what it has done about it.

use super::gateways::tests::{class, gateway, objects};
use super::*;
use cairn_config_schema::status::CONTROLLER;
use serde_json::{Value, json};

/// A desk whose API server nobody answers for.
fn desk(standing: &Standing) -> Desk<'_> {
    let config = kube_client::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let pods = PodSettings {
        image: "cairn:test".to_owned(),
        ca_address: None,
        trust_domain: None,
        cluster_domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        network: None,
        istio_namespace: None,
        discovery: None,
        xds_address: None,
        drain_s: 25,
    };
    let settings = Settings {
        namespace: "cairn-system".to_owned(),
        identity: "one".to_owned(),
        lease: None,
        class: Some("mine".to_owned()),
        revision: "default".to_owned(),
        waypoint_role: Some("cairn-waypoint".to_owned()),
        pods,
    };
    let office = Office {
        api: Api::new(client, Arc::default()),
        settings: Arc::new(settings),
        owned: Owned::default(),
        applied: Default::default(),
        role_failure: Mutex::default(),
        programmed: Programmed::default(),
        handed_over: Default::default(),
        world: RwLock::default(),
    };
    Desk {
        office: Arc::new(office),
        standing,
        reader: Some(Reader::new(Options::default(), "default".to_owned())),
        queue: Queue::default(),
        prints: Prints::default(),
        accounts: None,
        has_class: false,
    }
}

impl Desk<'_> {
    /// Puts a state of the cluster, and takes what is due.
    fn after(&mut self, all: &[Value]) -> Vec<Task> {
        let mut reader = self.reader.take().unwrap();
        let world = reader.read(Arc::new(objects(all)));
        self.reader = Some(reader);
        self.put(world);
        self.due()
    }

    /// What is due, which stays undone.
    fn due(&mut self) -> Vec<Task> {
        let mut due = Vec::new();
        while let Some(task) = self.queue.take(Instant::now()) {
            due.push(task);
        }
        due
    }

    fn fail(&mut self, tasks: &[Task]) {
        for task in tasks {
            self.done(task, queue::Done::Failed);
        }
    }
}

fn typed(mut object: Value) -> Value {
    object["apiVersion"] = json!("gateway.networking.k8s.io/v1");
    object
}

#[tokio::test]
async fn a_class_that_disappears_is_made_again_and_the_waypoints_may_read_on() {
    let standing = Standing::default();
    let mut desk = desk(&standing);
    let account = (MadeKind::ServiceAccount, ObjectKey::new("shop", "waypoint"));
    let owners = json!([{"kind": "Gateway", "uid": "u-1"}]);
    let all = [
        typed(class("mine", CONTROLLER)),
        typed(gateway("waypoint", "mine", json!({}))),
    ];
    desk.after(&all);
    desk.office
        .owned
        .put(account, json!({"metadata": {"ownerReferences": owners}}));
    desk.take(&News::Account);
    let bound = desk.accounts.clone().unwrap();
    assert_eq!(bound, [ObjectKey::new("shop", "waypoint")].into());
    let without = desk.after(&all[1..]);
    assert!(without.contains(&Task::Class), "{without:?}");
    assert_eq!(desk.office.accounts(), bound);
    assert!(!desk.after(&all[1..]).contains(&Task::Class), "once");
}

/// Accounts are bound when they are made, and not before.
#[tokio::test]
async fn an_account_that_is_made_is_bound() {
    let standing = Standing::default();
    let mut desk = desk(&standing);
    let all = [
        typed(class("mine", CONTROLLER)),
        typed(gateway("waypoint", "mine", json!({}))),
    ];
    let first = desk.after(&all);
    assert!(first.contains(&Task::Role), "{first:?}");
    desk.done(&Task::Role, queue::Done::Well);
    desk.take(&News::Account);
    assert_eq!(desk.due(), [], "nothing was made");
    let account = (MadeKind::ServiceAccount, ObjectKey::new("shop", "waypoint"));
    let owners = json!([{"kind": "Gateway", "uid": "u-1"}]);
    desk.office
        .owned
        .put(account, json!({"metadata": {"ownerReferences": owners}}));
    desk.take(&News::Account);
    assert_eq!(desk.due(), [Task::Role]);
}

#[tokio::test]
async fn a_status_that_failed_waits_its_time_whatever_else_is_read() {
    let standing = Standing::default();
    let mut desk = desk(&standing);
    let mut all = vec![
        typed(class("mine", CONTROLLER)),
        typed(gateway("waypoint", "mine", json!({}))),
    ];
    let first = desk.after(&all);
    let class = Task::Status("kubernetes:GatewayClass/mine".into());
    assert!(first.contains(&class), "{first:?}");
    // As often as it takes for the wait to be longer than this test.
    for _ in 0..10 {
        desk.fail(&first);
        let later = Instant::now() + RESYNC;
        while desk.queue.take(later).is_some() {}
    }
    desk.fail(&first);
    all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}}));
    assert_eq!(desk.after(&all), []);
    all[0]["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(desk.after(&all), [class]);
}
